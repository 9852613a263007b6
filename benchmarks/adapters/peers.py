"""Runs the tests of other packages with our operators dropped in, beside the same tests as they are.

    python -m benchmarks.adapters.peers --envs ENVS --sources SOURCES --out benchmarks/results/peers.json

ENVS holds the environments that ``benchmarks.adapters.run`` made, one a package, with the package and this tree
installed; packages of kernels need torch, triton and pytest only. SOURCES holds for each suite NAME its folder, the
repository as NAME.git (``git clone --bare URL SOURCES/NAME.git``), or its source distribution as NAME.tar.gz
(``pip download --no-deps --no-binary :all: PACKAGE``).

A test that passes as it is and not with our operators is listed with the convention that differs. Tests of a GPU are
skipped as they are where there is none; those of kernels then run with our CPU kernels. Tests that ask a hub for models
fail or are skipped on both sides where there is none.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.adapters.conventions import CONVENTIONS
from benchmarks.adapters.dropped_in import KERNELS
from benchmarks.adapters.run import versions
from benchmarks.embeddings import read_json, write_json
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
    "late_interaction_kernels": Suite(
        "https://github.com/hcompai/late-interaction-kernels",
        (
            "tests/test_forward.py",
            "tests/test_backward.py",
            "tests/test_edge_cases.py",
            "tests/test_kd_pairs_fast.py",
            "tests/test_maxsim_kd_dispatch.py",
            "tests/test_normalize.py",
            "tests/test_padded.py",
            "tests/test_retrieve.py",
            "tests/test_retrieve_cpu.py",
            "tests/test_robustness.py",
            "tests/test_scatter.py",
            "tests/test_topk.py",
            "tests/test_varlen.py",
        ),
    ),
    "flash_maxsim": Suite("https://github.com/roipony/flash-maxsim", ("tests/test_flash_maxsim.py",)),
}


def main() -> None:
    """Runs each suite twice and writes what passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--sources", type=Path, required=True, help="folder of the clones")
    parser.add_argument("--only", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write; other suites in it stay")
    options = parser.parse_args()
    report: dict[str, Any] = read_json(options.out) if options.out.exists() else {"suites": {}}
    for name in options.only:
        python = options.envs.absolute() / name / "bin" / "python"
        with tempfile.TemporaryDirectory() as folder:
            version = unpacked(options.sources.resolve(), name, versions(python), Path(folder))
            report["suites"][name] = compared(name, python, Path(folder)) | {"tests_of": version}
        report["machine"] = machine(sorted(os.sched_getaffinity(0)))
        write_json(options.out, report)


def unpacked(sources: Path, name: str, installed: dict[str, str], into: Path) -> str:
    """Puts a suite into a folder; which version it is of: that of the installed package, if the repository has it.

    Of packages that adapters are for, tests only, so that they test what is installed.
    """
    folder, repository, archive = (sources / f"{name}{ending}" for ending in ("", ".git", ".tar.gz"))
    parts = () if name in KERNELS else ("tests",)
    if folder.is_dir():
        for part in parts or (".",):
            shutil.copytree(folder / part, into / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
        return described(folder, "HEAD")
    if repository.is_dir():
        tags = set(git(repository, "tag").split())
        wanted = [f"{prefix}{version}" for version in list(installed.values())[:1] for prefix in ("v", "")]
        at = next((tag for tag in wanted if tag in tags), "HEAD")
        command = ["git", "-C", repository, "archive", at, *parts]
        files = subprocess.run(command, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(files)) as tree:
            tree.extractall(into, filter="data")
        return described(repository, at)
    if archive.is_file():
        with tempfile.TemporaryDirectory() as place, tarfile.open(archive) as tree:
            tree.extractall(place, filter="data")
            (source,) = Path(place).iterdir()
            for part in parts or (".",):
                shutil.copytree(source / part, into / part, dirs_exist_ok=True)
            return source.name.rsplit("-", 1)[-1]
    sys.exit(f"{folder} is missing: git clone {SUITES[name].url} {folder}")


def git(repository: Path, *command: str) -> str:
    """What git says of a repository."""
    done = subprocess.run(["git", "-C", repository, *command], capture_output=True, text=True)
    return done.stdout.strip()


def described(repository: Path, at: str) -> str:
    """A tag, or the last one before a commit with what came after it; a commit's number where there is none."""
    return git(repository, "describe", "--tags", "--always", at) or "unknown"


def compared(name: str, python: Path, source: Path) -> dict[str, Any]:
    """What passes as it is and with ours, and of what passes on one side only, why."""
    tests = [test for test in SUITES[name].tests if (source / test).exists()]
    (plain, _), (ours, calls) = (outcomes(python, source, tests, adapter) for adapter in ("", name))
    if "passed" not in kinds(plain).values() and name not in KERNELS:
        sys.exit(f"no test in {source} passes as it is: {counts(plain)}; something that it needs is missing")
    lost = sorted(test for test, (kind, _) in ours.items() if kind != "passed" and _should(name, plain.get(test)))
    found = {
        "versions": versions(python),
        "tests": tests,
        "as_they_are": counts(plain),
        "with_lateint": counts(ours),
        "scores_by_lateint": calls,
        "lost": {test: reason(name, test, ours[test][1]) for test in lost},
        "won": sorted(test for test, kind in kinds(ours).items() if kind == "passed" != kinds(plain).get(test)),
    }
    print(name, found["as_they_are"], found["with_lateint"], calls, *found["lost"].items(), sep="\n  ", flush=True)
    return found


def _should(name: str, plain: tuple[str, str] | None) -> bool:
    """Whether a test should pass: it does as it is, or it is one of kernels and there is no GPU."""
    return plain is not None and (plain[0] == "passed" or (plain[0] == "skipped" and name in KERNELS))


def reason(name: str, test: str, message: str) -> str:
    """The convention that a test holds to and lateint does not."""
    found = (why for part, why in CONVENTIONS.get(name, {}).items() if part in test)
    return next(found, f"not known: {message}")


def outcomes(python: Path, source: Path, tests: list[str], adapter: str) -> tuple[dict[str, tuple[str, str]], int]:
    """Each test, how it went and what was said, and how often our scores were asked for.

    ``adapter`` names what is replaced by lateint, "" nothing.
    """
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "LATEINT_ADAPTER": adapter, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryDirectory() as folder:
        xml, calls = Path(folder, "report.xml"), Path(folder, "calls")
        environment["LATEINT_CALLS"] = str(calls)
        options = ["-q", "-o", "addopts=", "-p", PLUGIN, "-p", "no:cacheprovider", f"--junitxml={xml}"]
        done = subprocess.run(
            [python, "-m", "pytest", *options, *tests], cwd=source, env=environment, capture_output=True, text=True
        )
        if not xml.exists():
            sys.exit(f"the tests in {source} did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        cases = ElementTree.parse(xml).getroot().iter("testcase")
        found = {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}
        return found, int(calls.read_text())


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    told = {child.tag: str(child.get("message", "")).partition("\n")[0][:200] for child in case}
    return next(((kind, told[kind]) for kind in ("error", "failure", "skipped") if kind in told), ("passed", ""))


def kinds(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Without what was said."""
    return {test: kind for test, (kind, _) in found.items()}


def counts(found: dict[str, tuple[str, str]]) -> dict[str, int]:
    """How many of each outcome."""
    all_kinds = list(kinds(found).values())
    return {kind: all_kinds.count(kind) for kind in ("passed", "failure", "error", "skipped")}


if __name__ == "__main__":
    main()
