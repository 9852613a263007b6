"""What installing takes: ``python -m benchmarks.install NAME --commit COMMIT --page docs/building.md``.

A clean checkout of COMMIT is installed with ``pip install .`` into a new environment, without a cache of compiled
files. CPU seconds are those of pip and of all that it starts, and those of each call of the compiler. They depend less
than the time that passes on what else the machine does. The entry NAME of the file is replaced; others are kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.embeddings import read_json, write_json
from benchmarks.render import number, table
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


def rendered(report: dict[str, Any]) -> str:
    """The table in docs/building.md."""
    rows = [
        (
            name,
            f"`{entry['commit'][:12]}`",
            f"{number(entry['cpu_seconds'])} s",
            f"{number(entry['compiler_cpu_seconds'])} s",
            f"{number(entry['bindings_cpu_seconds'])} s",
            str(entry["sources"]),
            f"{entry['module_bytes'] / 1e6:.1f} MB",
        )
        for name, entry in report.items()
    ]
    head = ("", "commit", "CPU, `pip install .`", "CPU, compiler", "of this pybind11's", "sources", "compiled module")
    loads = ", ".join(f"{entry['machine']['load_at_start']:.0f}" for entry in report.values())
    seconds = ", ".join(f"{entry['seconds']:.0f} s" for entry in report.values())
    return (
        f"{table(head, rows)}\n\nBoth ran beside much other work on two cores (load {loads}), which raises CPU time "
        f"too. By the clock they took {seconds}, which says little."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="of the entry, such as before or after; left out: nothing is measured")
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "install.json")
    parser.add_argument("--page", type=Path, help="whose table between <!-- install --> marks is written")
    options = parser.parse_args()
    report = read_json(options.out) if options.out.exists() else {}
    if options.name is not None:
        of = machine(sorted(os.sched_getaffinity(0)))
        report[options.name] = {"machine": of, **installed(options.commit, options.compiler)}
        write_json(options.out, report)
        print(options.name, report[options.name])
    if options.page is not None:
        page = options.page.read_text()
        before, _, after = page.partition("<!-- install -->\n")
        options.page.write_text(
            f"{before}<!-- install -->\n{rendered(report)}\n<!-- /install -->{after.partition('<!-- /install -->')[2]}"
        )


if __name__ == "__main__":
    main()
