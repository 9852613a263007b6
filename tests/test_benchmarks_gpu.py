"""The benchmark of GPUs runs through where there is none: tiny cases, in Triton's interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")
ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_smoke(tmp_path):
    out = tmp_path / "report.json"
    import lateint_kernels

    path = os.pathsep.join([str(Path(lateint_kernels.__file__).parents[1]), str(ROOT)])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    command = [sys.executable, "-m", "benchmarks.gpu", "--smoke", "--sweep", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(out.read_text())
    for name, case in report["cases"].items():
        found = case["systems"]["lateint-triton"]
        assert found["forward"]["ms"] > 0 and found["errors"]["scores"] < 1e-2, name
        assert ("backward" in found) == case["train"], name
    assert report["cases"]["train"]["systems"]["lateint-triton"]["profile"]  # its goals cannot be met
    assert {"lateint-triton", "pylate"} <= report["encoder"]["steps"].keys()
    assert {"cpp", "triton", "torch"} <= report["pooling"]["documents"].keys()
    assert all(report["scores"][f"{name}, train"].keys() == {"triton", "torch"} for name in ("xtr", "smooth"))
    assert report["first_call"]["lateint-triton"]["full cache"]["second step"] > 0
    assert report["sweep"]["train"]
    assert "lateint-triton" in done.stdout


def test_search(tmp_path):
    """In torch on the CPU, and the CPU's own engine finds the same in the index that was built."""
    out = tmp_path / "report.json"
    import lateint_kernels

    path = os.pathsep.join([str(Path(lateint_kernels.__file__).parents[1]), str(ROOT)])
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    command = [sys.executable, "-m", "benchmarks.gpu.search", "--smoke", "--out", str(out)]
    command += ["--tokens", "6000", "--dim", "20", "--repeats", "1", "--nbits", "2"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(out.read_text())
    assert report["as_on_the_cpu"] is True
    assert report["centroids"] == report["tokens"] // 48 and report["index_bytes"] > 6000 * 6
    assert set(report["build_seconds"]) >= {"sample", "centroids", "rotate", "assign", "encode", "lists"}
    assert report["cases"]["single"]["recall_10"] >= 0.5 and report["cases"]["exhaustive"]["ms_p50"] > 0
