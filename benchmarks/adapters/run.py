"""Tests adapters and encoders against the packages they are for, each in an environment of its own, and measures them.

    python -m benchmarks.adapters.run --envs ENVS --out benchmarks/results/adapters.json

Run it from the repository's root. For each package it makes an environment in the folder ENVS (kept, and used again),
installs the pinned package with the versions that it asks for itself and this tree, and runs its test_adapters_*.py and
its part of test_encoders.py there. It times one training step and one scoring with and without the adapter. The default
builds of torch take some 5 GB in each environment; pip's own settings (an index with CPU builds) apply.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# What is installed for each adapter, besides this tree. PyLate brings the torch that it pins. colpali-engine takes any,
# but it must be of the same build as torchvision, of which an index may have fewer.
PACKAGES = {
    "pylate": ["pylate==1.6.0", "onnx", "onnxruntime"],
    "sentence_transformers": ["sentence-transformers==6.2.0"],
    "colpali": ["colpali-engine==0.3.18", "torch==2.11.0", "torchvision==0.26.0"],
}
# Which of tests/lateint/test_encoders.py run there.
ENCODERS = {"pylate": "pylate or onnx", "sentence_transformers": "sentence", "colpali": "colpali"}
REPORTED = ("pylate", "sentence-transformers", "colpali-engine", "torch", "transformers", "numpy", "lateint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--envs", type=Path, required=True, help="folder for the environments")
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--wheel", type=Path, help="a wheel of this tree; built if not given")
    arguments = parser.parse_args()
    arguments.envs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or built_wheel(Path(folder))
        results = {name: measured(name, arguments.envs.resolve() / name, wheel) for name in arguments.only}
    report = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version()},
        "commit": output("git", "describe", "--always", "--dirty"),
        "adapters": results,
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {arguments.out}")
    if any(result["failed"] for result in results.values()):
        sys.exit("some tests failed")


def built_wheel(folder: Path) -> Path:
    print("building this tree ...", flush=True)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ".")
    return next(folder.glob("*.whl"))


def measured(name: str, env: Path, wheel: Path) -> dict[str, Any]:
    python = env / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", env)
    print(f"{name}: installing ...", flush=True)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, *PACKAGES[name], "pytest", "hypothesis")
    run(*pip, "--force-reinstall", "--no-deps", wheel)
    print(f"{name}: testing ...", flush=True)
    tests = [f"tests/kernels/test_adapters{suffix}.py" for suffix in ("", f"_{name}")]
    done = subprocess.run([python, "-m", "pytest", "-q", "-rfEs", *tests], capture_output=True, text=True)
    encoders = [python, "-m", "pytest", "-q", "-rfEs", "tests/lateint/test_encoders.py", "-k", ENCODERS[name]]
    also = subprocess.run(encoders, capture_output=True, text=True)
    done.stdout, done.returncode = done.stdout + also.stdout, done.returncode or also.returncode
    counts: Counter[str] = Counter()
    for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout):
        counts[word] += int(n)
    failed = counts.get("failed", 0) + counts.get("error", 0) + counts.get("skipped", 0) or int(done.returncode != 0)
    if failed:
        print(done.stdout[-4000:], done.stderr[-2000:])
    print(f"{name}: timing ...", flush=True)
    timings = json.loads(output(python, "benchmarks/adapters/speed.py", name))
    return {
        "versions": versions(python),
        "passed": counts.get("passed", 0),
        "failed": failed,
        "failures": re.findall(r"^(?:FAILED|ERROR|SKIPPED) .*", done.stdout, re.MULTILINE),
        **timings,
    }


def versions(python: Path) -> dict[str, str]:
    lines = output(python, "-m", "pip", "--disable-pip-version-check", "list", "--format=freeze").splitlines()
    found = dict(line.split("==", 1) for line in lines if "==" in line)
    found = {name.replace("_", "-"): version for name, version in found.items()}
    return {name: found[name] for name in REPORTED if name in found}


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


def output(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
