"""The command that runs other packages' tests: where it takes them from, and how it tells what was lost."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks are in the tree alone; all else is what is installed

from benchmarks.adapters import peers


def suite(folder):
    (folder / "tests").mkdir(parents=True)
    (folder / "package").mkdir()
    (folder / "tests" / "test_it.py").write_text(
        "def test_it():\n    assert True\n\n\ndef test_other():\n    assert False, 'no'\n"
    )
    return folder


@pytest.mark.parametrize("kind", ["folder", "repository", "archive"])
def test_a_suite_is_taken_from(tmp_path, kind):
    made, sources, into = suite(tmp_path / "name-1.2"), tmp_path / "sources", tmp_path / "into"
    sources.mkdir()
    into.mkdir()
    if kind == "folder":
        made.rename(sources / "pylate")
    elif kind == "archive":
        with tarfile.open(sources / "pylate.tar.gz", "w:gz") as archive:
            archive.add(made, "name-1.2")
    else:
        git = ["git", "-c", "user.name=n", "-c", "user.email=e@e"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", "v1.2"]):
            subprocess.run([*git, *command], cwd=made, check=True)
        subprocess.run(["git", "clone", "-q", "--bare", made, sources / "pylate.git"], check=True)
    version = peers.unpacked(sources, "pylate", {"pylate": "1.2"}, into)
    assert [path.name for path in into.iterdir()] == ["tests"]  # and not the package, which would be tested instead
    assert kind == "folder" or version.removeprefix("v") == "1.2"


def test_a_missing_suite_says_how_to_get_it(tmp_path):
    with pytest.raises(SystemExit, match=r"git clone https://github\.com/lightonai/pylate"):
        peers.unpacked(tmp_path, "pylate", {}, tmp_path)


def test_outcomes_and_reasons(tmp_path):
    import sys
    from pathlib import Path

    found, calls = peers.outcomes(Path(sys.executable), suite(tmp_path / "x"), ["tests/test_it.py"], "")
    assert peers.counts(found) == {"passed": 1, "failure": 1, "error": 0, "skipped": 0} and calls == 0
    (message,) = (said for kind, said in found.values() if kind == "failure")
    assert peers.reason("pylate", "tests.test_it::test_other", message) == f"not known: {message}"
    assert "other words" in peers.reason("sentence_transformers", "x::test_rejects_non_positive_topk[0]", "")
