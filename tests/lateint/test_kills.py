"""A writer that is killed, with `kill -9`, at random instants; more of them: ``python -m benchmarks.living kills``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lateint
import lateint_kernels

LONG = [pytest.param(160, seed, marks=pytest.mark.long) for seed in range(2)]


@pytest.mark.parametrize(("kills", "seed"), [(40, 2), *LONG])
def test_what_a_killed_writer_acknowledged_is_there(tmp_path, kills, seed):
    roots = [Path(lateint.__file__).parents[1], Path(lateint_kernels.__file__).parents[1], Path(__file__).parent]
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "kills.py", tmp_path / "index", str(kills), str(seed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "LATEINT_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == kills and found["commits"] > 5 and found["half done"] > kills / 4
