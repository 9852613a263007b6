"""What Triton makes of our kernels, executed without a GPU, against plain torch: dense on sm_80 and sm_90, and codes.

The long form, with every case, is ``python -m benchmarks.gpu.executed``.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lateint_kernels import __file__ as package

pytest.importorskip("torch")
pytest.importorskip("triton")
if find_spec("triton.backends.nvidia") is None:
    pytest.skip("this Triton cannot compile for NVIDIA", allow_module_level=True)

STAGES = {"forward", "gradient", "retrieved", "cluster", "best_products", "weighted", "rotate"}


@pytest.mark.long
@pytest.mark.parametrize("capability", [80, 90])
def test_as_torch(capability):
    script = Path(__file__).with_name("execute_triton.py")
    path = os.pathsep.join([str(Path(package).parents[1]), str(script.parent)])
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(capability)],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {case["case"].split()[0] for case in found} >= STAGES
    assert [case["case"] for case in found if not case["same"]] == []
