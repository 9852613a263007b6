"""What a wheel of this tree needs: ``python -m benchmarks.wheel --tools BIN --out benchmarks/results/wheel.json``.

BIN is the folder of the programs ``cibuildwheel`` and ``auditwheel`` (``pip install cibuildwheel auditwheel``). The
wheel is built here, not in the image that cibuildwheel would use. So auditwheel says which versions of the C library
this machine's compiler asks for, and that the wheel needs no other library; the image has an older C library.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.embeddings import write_json
from benchmarks.rivals.run import machine

ROOT = Path(__file__).parents[1]


def output(*command: str | Path) -> str:
    """What a command prints; its PATH begins with its own folder."""
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ["PATH"]])
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}
    ).stdout


def checked(tools: Path) -> dict[str, Any]:
    """What the configuration builds, and what auditwheel says of a wheel."""
    builds = {
        system: output(tools / "cibuildwheel", "--print-build-identifiers", "--platform", system).split()
        for system in ("linux", "macos")
    }
    with tempfile.TemporaryDirectory() as room:
        output(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", room, ".")
        (wheel,) = Path(room).glob("*.whl")
        shown = " ".join(output(tools / "auditwheel", "show", wheel).split())
        tag = re.search(r'is consistent with the following platform tag: "(\S+?)"', shown)
        return {
            "wheel": wheel.name,
            "bytes": wheel.stat().st_size,
            "builds": builds,
            "platform_tag": tag and tag[1],
            "libraries": sorted(set(re.findall(r"(lib[\w+]+\.so\.\d+) with versions", shown))),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report = {"machine": machine(sorted(os.sched_getaffinity(0))), **checked(options.tools.absolute())}
    write_json(options.out, report)
    print({name: value for name, value in report.items() if name != "machine"})


if __name__ == "__main__":
    main()
