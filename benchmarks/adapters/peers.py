"""Runs the tests of other packages with our operators dropped in, beside the same tests as they are.

    python -m benchmarks.adapters.peers --envs ENVS --sources SOURCES --out benchmarks/results/peers.json

ENVS holds the environments that ``benchmarks.adapters.run`` made, one a package, with the package and this tree
installed. SOURCES holds a clone of each repository (git clone URL SOURCES/NAME, at the tag of the installed version);
only its tests are used. A test that passes as it is and not with our operators is one of a convention that differs, and
is listed. Tests that ask a hub for models fail or are skipped on both sides where there is none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.adapters.run import versions
from benchmarks.embeddings import write_json
from benchmarks.rivals.run import machine

PLUGIN = "benchmarks.adapters.dropped_in"


@dataclass(frozen=True)
class Suite:
    """Tests of a package that reach what an adapter replaces."""

    url: str
    tests: tuple[str, ...]


SUITES = {
    "pylate": Suite(
        "https://github.com/lightonai/pylate",
        (
            "tests/test_colbert_scores.py",
            "tests/test_contrastive.py",
            "tests/test_cached_contrastive.py",
            "tests/test_kd.py",
            "tests/test_xtr_scores.py",
            "tests/test_xtr_scoring.py",
        ),
    ),
    "sentence_transformers": Suite(
        "https://github.com/huggingface/sentence-transformers",
        ("tests/multi_vector_encoder", "tests/util/test_similarity.py"),
    ),
    "colpali": Suite(
        "https://github.com/illuin-tech/colpali", ("tests/loss", "tests/compression", "tests/utils", "tests/data")
    ),
}


def main() -> None:
    """Runs each suite twice and writes what passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--sources", type=Path, required=True, help="folder of the clones")
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    options = parser.parse_args()
    report: dict[str, Any] = {"suites": {}}
    for name in options.only:
        source = options.sources.resolve() / name
        if not source.is_dir():
            parser.error(f"{source} is missing: git clone {SUITES[name].url} {source}")
        report["suites"][name] = compared(name, options.envs.absolute() / name / "bin" / "python", source)
        report["machine"] = machine(sorted(os.sched_getaffinity(0)))
        write_json(options.out, report)


def compared(name: str, python: Path, source: Path) -> dict[str, Any]:
    """What passes as it is and with ours, and what passes on one side only."""
    tests = [test for test in SUITES[name].tests if (source / test).exists()]
    (plain, _), (ours, calls) = (outcomes(python, source, tests, adapter) for adapter in ("", name))
    found = {
        "versions": versions(python),
        "tests": tests,
        "as_they_are": counts(plain),
        "with_lateint": counts(ours),
        "scores_by_lateint": calls,
        "only_as_they_are": sorted(test for test in plain if plain[test] == "passed" != ours.get(test)),
        "only_with_lateint": sorted(test for test in ours if ours[test] == "passed" != plain.get(test)),
    }
    print(name, found["as_they_are"], found["with_lateint"], calls, found["only_as_they_are"], flush=True)
    return found


def outcomes(python: Path, source: Path, tests: list[str], adapter: str) -> tuple[dict[str, str], int]:
    """Each test and how it went, and how often our scores were asked for.

    ``adapter`` names what replaces the package's own scores, "" nothing.
    """
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "LATEINT_ADAPTER": adapter, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryDirectory() as folder:
        xml, calls = Path(folder, "report.xml"), Path(folder, "calls")
        environment["LATEINT_CALLS"] = str(calls)
        command = [
            python,
            "-m",
            "pytest",
            "-q",
            "-o",
            "addopts=",
            "-p",
            PLUGIN,
            "-p",
            "no:cacheprovider",
            f"--junitxml={xml}",
            *tests,
        ]
        done = subprocess.run(
            [str(part) for part in command], cwd=source, env=environment, capture_output=True, text=True
        )
        if not xml.exists():
            sys.exit(f"the tests in {source} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        cases = ElementTree.parse(xml).getroot().iter("testcase")
        found = {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}
        return found, int(calls.read_text())


def _outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return next((kind for kind in ("error", "failure", "skipped") if kind in kinds), "passed")


def counts(found: dict[str, str]) -> dict[str, int]:
    """How many of each outcome."""
    return {kind: list(found.values()).count(kind) for kind in ("passed", "failure", "error", "skipped")}


if __name__ == "__main__":
    main()
