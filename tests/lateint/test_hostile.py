"""No index, whoever made it, crashes the process, hangs it or takes more memory than it has bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lateint
import lateint_kernels

# Each heap of glibc's takes 64 MB of addresses, which are bounded, and how many there are is a matter of luck.
HEAP = {"MALLOC_ARENA_MAX": "1"}
PROGRAM = """
import json, sys
from pathlib import Path
import hostile
print(json.dumps(hostile.run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/statm is Linux's")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_indexes_of_strangers(tmp_path, seed):
    """In a process of its own, with a bound on its memory; ``python -m benchmarks.trust hostile`` is the long form."""
    roots = [Path(lateint.__file__).parents[1], Path(lateint_kernels.__file__).parents[1], Path(__file__).parent]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, tmp_path, str(seed), "400"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots)), "LATEINT_NUM_THREADS": "2", **HEAP},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == 400 and min(outcomes[name] for name in ("refused", "damage found", "used")) > 10
