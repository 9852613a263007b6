"""Ray on this machine for the tests of a session; none of them runs without it."""

import os
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", minversion="2.60")

import lateint_ray  # noqa: E402


@pytest.fixture(scope="session")
def cluster():
    # Workers find the encoders of tests by this.
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    # Small: nothing but a few actors of tests lives in it.
    lateint_ray.start(num_cpus=4, object_store_memory=1 << 30, logging_level="error")
    yield ray
    ray.shutdown()
