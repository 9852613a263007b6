"""Random collections, changes, settings and threads against brute force on integers; see model.py."""

import model
import pytest


@pytest.mark.parametrize("seed", range(60))
def test_a_random_collection(tmp_path, seed):
    """``python -m benchmarks.trust model`` is the long form."""
    model.check(seed, tmp_path / "index")
