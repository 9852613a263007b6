"""What a call costs the host before a kernel runs: our own code, with a driver that does nothing.

    python -m benchmarks.gpu.launches --out benchmarks/results/launches.json

The driver is that of tests/kernels/driver.cpp, tensors lie on the host, and the time of torch's allocations, which
another allocator does on a GPU, is measured by itself. The least of many calls counts: it is what no other program on
the machine disturbed.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SOURCE = Path(__file__).parents[2] / "tests" / "kernels" / "driver.cpp"
CALLS = 3000
GOAL = 15.0  # microseconds


def least(call: Callable[[], Any]) -> float:
    """Microseconds of the fastest of many calls."""
    found = float("inf")
    for _ in range(CALLS):
        before = time.perf_counter_ns()
        call()
        found = min(found, time.perf_counter_ns() - before)
    return found / 1000


def measure() -> dict[str, float]:
    """Microseconds of a forward pass of 64 queries and 64 documents on sm_90a, and of its parts."""
    import torch

    from lateint_kernels.dense.cuda import forward
    from lateint_kernels.dense.problem import Problem
    from lateint_kernels.gpu import program

    stream = SimpleNamespace(cuda_stream=7)
    torch.cuda.current_stream = lambda index: stream
    program.cubin = lambda name, defines, arch: b"code"
    tokens = torch.zeros(64 * 32, 128, dtype=torch.bfloat16), torch.zeros(64 * 180, 128, dtype=torch.bfloat16)
    problem = Problem(tokens[0], torch.arange(65) * 32, tokens[1], torch.arange(65) * 180, 32, 180)
    index, rows = tokens[0].get_device(), 128

    def described() -> bytes:
        program._tensor_map.cache_clear()
        return program.tensor_map(tokens[1], rows)

    def outputs() -> tuple[Any, Any]:
        return tokens[0].new_empty((1, 64, 64), dtype=torch.float32), tokens[0].new_empty((64, 2048), dtype=torch.uint8)

    program.gpu(index)
    return {
        "forward": least(lambda: forward.maxsim(problem, True)),
        "allocations": least(outputs),
        "tensor map, new": least(described),
        "tensor map, kept": least(lambda: program.tensor_map(tokens[1], rows)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory() as folder:
        compiler = shutil.which("g++") or shutil.which("clang++") or sys.exit("needs a C++ compiler")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", SOURCE, "-o", f"{folder}/libcuda.so.1"], check=True)
        command = [sys.executable, "-m", "benchmarks.gpu.launches", "--measure", "--out", "-"]
        environment = {**os.environ, "LD_LIBRARY_PATH": folder, "QUIET_DRIVER": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    own = found["forward"] - found["allocations"]
    report = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "microseconds": {name: round(value, 2) for name, value in found.items()},
        "our own code": round(own, 2),
        "goal": GOAL,
        "reached": own <= GOAL,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
