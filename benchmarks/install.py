"""What installing takes: ``python -m benchmarks.install NAME --commit COMMIT --out benchmarks/results/install.json``.

A clean checkout of COMMIT is installed with ``pip install .`` into a new environment, without a cache of compiled
files. CPU seconds are those of pip and of all that it starts, and those of each call of the compiler. They depend less
than the time that passes on what else the machine does. The entry NAME of the file is replaced; others are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.embeddings import write_json
from benchmarks.rivals.run import machine

ROOT = Path(__file__).parents[1]
# Stands in for the compiler: runs it, and notes the CPU seconds of each source.
COMPILER = """#!{python} -IS
import os, resource, sys
status = os.spawnvp(os.P_WAIT, {compiler!r}, [{compiler!r}, *sys.argv[1:]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
for source in [word for word in sys.argv[1:] if word.endswith(".cpp")]:
    with open({log!r}, "a") as log:
        log.write(f"{{used.ru_utime + used.ru_stime}} {{source}}\\n")
sys.exit(status)
"""


def checked_out(commit: str, folder: Path) -> None:
    """The tracked files of a commit."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)


def children() -> float:
    """CPU seconds of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def installed(commit: str, compiler: str) -> dict[str, Any]:
    """What one installation takes."""
    with tempfile.TemporaryDirectory() as room:
        tree, env, log, stand_in = (Path(room, name) for name in ("tree", "env", "log", "compiler"))
        tree.mkdir()
        checked_out(commit, tree)
        subprocess.run([sys.executable, "-m", "venv", env], check=True)
        stand_in.write_text(COMPILER.format(python=sys.executable, compiler=compiler, log=str(log)))
        stand_in.chmod(0o700)
        settings = {**os.environ, "CC": str(stand_in), "CXX": str(stand_in), "CCACHE_DISABLE": "1"}
        settings.pop("PYTHONPATH", None)
        cpu, started = children(), time.monotonic()
        subprocess.run([env / "bin" / "pip", "install", "-q", "."], cwd=tree, env=settings, check=True)
        seconds, cpu = time.monotonic() - started, children() - cpu
        sources = [line.split() for line in log.read_text().splitlines()]
        (module,) = env.glob("lib/python*/site-packages/lateint_kernels/_cpu*.so")
        slowest = sorted(((source, float(of)) for of, source in sources), key=lambda one: -one[1])
        return {
            "commit": subprocess.run(
                ["git", "rev-parse", commit], cwd=ROOT, check=True, capture_output=True, text=True
            ).stdout.strip(),
            "seconds": seconds,
            "cpu_seconds": cpu,
            "compiler_cpu_seconds": sum(of for _, of in slowest),
            "bindings_cpu_seconds": sum(of for source, of in slowest if "/bindings/" in source),
            "slowest_cpu_seconds": dict(slowest[:8]),
            "sources": len(slowest),
            "module_bytes": module.stat().st_size,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the entry, such as before or after")
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    of = machine(sorted(os.sched_getaffinity(0)))
    entry = {"machine": of, **installed(options.commit, options.compiler)}
    report = json.loads(options.out.read_text()) if options.out.exists() else {}
    write_json(options.out, report | {options.name: entry})
    print(options.name, {name: value for name, value in entry.items() if name.endswith(("seconds", "bytes"))})


if __name__ == "__main__":
    main()
