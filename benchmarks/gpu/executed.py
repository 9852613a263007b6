"""Executes our kernels' PTX without a GPU, in every form that tests have, and counts what passed.

    python -m benchmarks.gpu.executed --out benchmarks/results/executed.json

The long form of tests/kernels/test_cuda*.py, test_ptx*.py and execute_triton.py: other orders of warps, copies early
and late, larger indexes, every Triton kernel on sm_80 and sm_90, and planted faults. What a part
found is written when it ends. An hour of one busy processor.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

TESTS = Path(__file__).parents[2] / "tests" / "kernels"
FILES = ("test_ptx", "test_ptx_faults", "test_cuda", "test_cuda_products", "test_cuda_scoreboard")
CAPABILITIES = (80, 90)


def suite(name: str, form: str) -> dict[str, Any]:
    """How many tests of a file passed, failed and were skipped, and the seconds they took."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={file.name}"]
        environment = {**os.environ, "LATEINT_PTX": form}
        subprocess.run([*command, str(TESTS / f"{name}.py")], env=environment, capture_output=True)
        (found,) = ElementTree.parse(file.name).getroot().iter("testsuite")
    total, skipped = int(found.get("tests", 0)), int(found.get("skipped", 0))
    failed = int(found.get("failures", 0)) + int(found.get("errors", 0))
    return {
        "passed": total - skipped - failed,
        "failed": failed,
        "skipped": skipped,
        "seconds": round(float(found.get("time", 0))),
    }


def triton(capability: int, form: str) -> dict[str, Any]:
    """How many comparisons with plain torch were as they should be, and which were not."""
    before = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", str(TESTS / "execute_triton.py"), str(capability), form]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [case["case"] for case in cases if not case["same"]]
    found = {"passed": len(cases) - len(wrong), "failed": len(wrong), "seconds": round(time.monotonic() - before)}
    if wrong:
        found["wrong"] = wrong
    if done.returncode:
        found["ended"] = done.stderr.strip().splitlines()[-1]
    return found


PARTS = [*FILES, *(f"triton sm_{number}" for number in CAPABILITIES)]


def part(name: str, form: str) -> dict[str, Any]:
    """What came of a file of tests, or of Triton's kernels."""
    return triton(int(name.rpartition("_")[2]), form) if name.startswith("triton") else suite(name, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--form", choices=("long", "short"), default="long", help="short: what the suite runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run; others in the JSON stay")
    arguments = parser.parse_args()
    report: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    done = {name: found for name, found in report.get("parts", {}).items() if report["form"] == arguments.form}

    def run(name: str) -> None:
        done[name] = found = part(name, arguments.form)
        print(json.dumps({name: found}), flush=True)
        total = {key: sum(found[key] for found in done.values()) for key in ("passed", "failed")}
        parts = {name: done[name] for name in PARTS if name in done}
        arguments.out.write_text(json.dumps({"form": arguments.form, "all": total, "parts": parts}, indent=1) + "\n")

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, arguments.only))
    sys.exit(any(found["failed"] or "ended" in found for found in done.values()))


if __name__ == "__main__":
    main()
