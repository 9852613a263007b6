"""A build that is killed goes on where it stopped, and ends with the bytes of one that was never stopped."""

import json
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from lateint import Index, train_codec
from lateint.indexing import builder, checkpoints

# A build of many checkpoints that kills itself at the n-th call by which it changes the disk; 0: never.
BUILD = """
import os
import signal
import sys
import warnings

import numpy as np

from lateint import Index
from lateint.disk import files, whole
from lateint.indexing import builder, checkpoints

folder, moment, settings = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])
builder.CHUNK, builder.PILOT, checkpoints.SECONDS = 200, 300, 0
left = moment

def dying(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

files.Column.write = dying(files.Column.write)
for name in ("replace", "rename", "fsync", "unlink"):
    setattr(os, name, dying(getattr(os, name)))
whole._exchange = dying(whole._exchange)
if moment == -1:
    warnings.simplefilter("error")
tokens, lengths = np.load(folder + "/tokens.npy"), np.load(folder + "/lengths.npy")
names = [f"doc {i}" for i in range(len(lengths))]
Index.build(tokens, folder + "/index", lengths=lengths, ids=names, resume=True, progress=False, **settings)
print(moment - left)
"""
SETTINGS = {"max_ram": 180_000, "ncentroids": 6, "allow_empty": True, "overwrite": True}


def run(folder, moment, **settings):
    command = [sys.executable, "-c", BUILD, str(folder), str(moment), repr({**SETTINGS, **settings})]
    return subprocess.run(command, capture_output=True, text=True)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def place(collection, tmp_path):
    np.save(tmp_path / "tokens.npy", collection.tokens)
    np.save(tmp_path / "lengths.npy", collection.lengths)
    return tmp_path


@pytest.fixture
def build(collection, monkeypatch):
    """Builds here, with many checkpoints."""
    monkeypatch.setattr(builder, "CHUNK", 200)
    monkeypatch.setattr(checkpoints, "SECONDS", 0)

    def build(path, source=collection, **settings):
        return Index.build(source, path, **{"progress": False, "resume": True, "ncentroids": 6, **settings})

    return build


@pytest.mark.parametrize("moments", [3, pytest.param(6, marks=pytest.mark.long)])
def test_killed_anywhere_a_build_ends_with_the_same_bytes(place, moments):
    """At moments from the first call to the last, every third twice; longest: ``python -m benchmarks.builds kills``."""
    done = run(place, 0)
    calls = int(done.stdout)
    expected = contents(place / "index")
    assert sum("codes" in name for name in expected) >= 3 and calls > 200
    kept = 0
    for number, moment in enumerate(np.linspace(1, calls, moments).astype(int).tolist()):
        (place / "index").rename(place / "old")
        assert run(place, moment).returncode == -signal.SIGKILL, moment
        kept += any((folder / "build.json").is_file() for folder in place.glob(".index.building-*"))
        if number % 3 == 1:
            run(place, 40)
        finished = run(place, -1)
        assert finished.returncode == 0, finished.stderr
        assert contents(place / "index") == expected, moment
        assert names(place) == ["index", "lengths.npy", "old", "tokens.npy"]
        for path in sorted((place / "old").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (place / "old").rmdir()
    assert kept >= moments - 2


def test_what_is_done_is_not_done_again(build, collection, tmp_path, monkeypatch):
    """Stopped in the middle, a build goes on behind its last checkpoint, with the codec that it has."""
    build(tmp_path / "plain", resume=False)
    stop(build, tmp_path / "index", monkeypatch, after=12)
    monkeypatch.setattr(builder, "train", None)
    encoded = []
    before = builder.Encoder.encoded
    monkeypatch.setattr(
        builder.Encoder, "encoded", lambda self, tokens, *a: encoded.append(len(tokens)) or before(self, tokens, *a)
    )
    build(tmp_path / "index")
    assert contents(tmp_path / "index") == contents(tmp_path / "plain")
    assert sum(encoded) == len(collection.tokens) - 11 * 200
    assert names(tmp_path) == ["index", "plain"]


def stop(build, path, monkeypatch, after, error=KeyboardInterrupt, **settings):
    """A build that is stopped when so many chunks were to be encoded."""
    left = [after]
    before = builder.Encoder.encoded

    def encoded(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise error
        return before(*arguments)

    with monkeypatch.context() as patched, pytest.raises(error):
        patched.setattr(builder.Encoder, "encoded", encoded)
        build(path, **settings)


@pytest.mark.parametrize("source", ["list", "iterable", "given codec", "8 bits", "long ids"])
def test_every_kind_of_build_goes_on(build, collection, tmp_path, monkeypatch, source):
    documents, settings = list(collection), {"max_ram": 180_000}
    if source == "iterable":
        documents = {i: tokens for i, tokens in enumerate(documents)}.values()
    if source == "given codec":
        settings = {"codec": train_codec(collection, ncentroids=9, progress=False), "ncentroids": None}
    if source == "8 bits":
        settings["nbits"] = 8
    if source == "long ids":
        monkeypatch.setattr("lateint_kernels.codes.residual.split_ids", three_bytes)
        monkeypatch.setattr("lateint.disk.layout.SHORT_IDS", 1)
    build(tmp_path / "plain", documents, resume=False, **settings)
    for after in (2, 12):
        stop(build, tmp_path / "index", monkeypatch, after, source=documents, **settings)
        assert len(list(tmp_path.glob(".index.building-*/build.json"))) == 1
    with monkeypatch.context() as patched:
        patched.setattr(builder, "train", None)
        if source != "long ids":
            build(tmp_path / "index", documents, **settings)
            assert contents(tmp_path / "index") == contents(tmp_path / "plain")
            assert names(tmp_path) == ["index", "plain"]


def three_bytes(ids, count):
    return (ids & 0xFFFF).astype(np.uint16), (ids >> 16).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"nbits": 2}, "settings"),
        ({"seed": 1}, "settings"),
        ({"max_ram": 190_000}, "settings"),
        ({"source": "shorter"}, "documents"),
        ({"source": "other tokens"}, "documents"),
        ({"source": "float16"}, "documents"),
    ],
)
def test_another_build_starts_over_and_says_so(build, collection, tmp_path, monkeypatch, change, what):
    settings = {"max_ram": 180_000, **change}
    if source := settings.pop("source", None):
        documents = list(collection)
        settings["source"] = {
            "shorter": documents[:-1],
            "other tokens": [documents[0], *(2 * tokens for tokens in documents[1:])],
            "float16": [tokens.astype(np.float16) for tokens in documents],
        }[source]
    build(tmp_path / "plain", **{**settings, "resume": False})
    stop(build, tmp_path / "index", monkeypatch, 9, max_ram=180_000)
    with pytest.warns(UserWarning, match=f"an unfinished build is not taken up, for it has other .*{what}") as caught:
        build(tmp_path / "index", **settings)
    assert caught[0].filename == __file__
    assert contents(tmp_path / "index") == contents(tmp_path / "plain")
    assert names(tmp_path) == ["index", "plain"]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "json"])
def test_damaged_leftovers_are_not_taken_up(build, tmp_path, monkeypatch, damage):
    build(tmp_path / "plain", resume=False)
    stop(build, tmp_path / "index", monkeypatch, 9)
    work = next(tmp_path.glob(".index.building-*"))
    file = work / ("build.json" if damage == "json" else "segments/000000/codes.npy")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flip" else data[: len(data) // 4])
    with pytest.warns(
        UserWarning, match=r"not taken up, for (its build\.json|segments/000000/codes\.npy) is (damaged|missing)"
    ):
        build(tmp_path / "index")
    assert contents(tmp_path / "index") == contents(tmp_path / "plain")


def test_leftovers_that_nobody_resumes_go(build, tmp_path, monkeypatch):
    """By the next build at that place that does not resume; a build that may not be resumed leaves none."""
    stop(build, tmp_path / "index", monkeypatch, 9)
    assert len(names(tmp_path)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(tmp_path / "index", resume=False)
    assert names(tmp_path) == ["index"]
    stop(build, tmp_path / "other", monkeypatch, 9, resume=False)
    assert names(tmp_path) == ["index"]
    stop(build, tmp_path / "third", monkeypatch, 9, error=ValueError)  # such documents never become an index
    assert names(tmp_path) == ["index"]


def test_a_full_disk_keeps_what_is_done(build, tmp_path, monkeypatch):
    build(tmp_path / "plain", resume=False)
    with pytest.raises(OSError, match="the disk is full; resume=True goes on with what is done"):
        full = OSError(28, "No space left on device")
        with monkeypatch.context() as patched:
            before, left = checkpoints.ResumableStore.checkpoint, [6]

            def checkpoint(self, progress):
                left[0] -= 1
                if left[0] == 0:
                    raise full
                before(self, progress)

            patched.setattr(checkpoints.ResumableStore, "checkpoint", checkpoint)
            build(tmp_path / "index")
    assert json.loads(next(tmp_path.glob(".index.building-*/build.json")).read_text())["progress"]["segment"] == 0
    build(tmp_path / "index")
    assert contents(tmp_path / "index") == contents(tmp_path / "plain")


def test_two_builds_at_once_do_not_share_a_leftover(build, tmp_path, monkeypatch):
    stop(build, tmp_path / "index", monkeypatch, 9)
    inside = []
    before = builder.Encoder.encoded

    def encoded(*arguments):
        if not inside:
            inside.append(True)
            build(tmp_path / "index", overwrite=True)
        return before(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(builder.Encoder, "encoded", encoded)
        build(tmp_path / "index", overwrite=True)
    build(tmp_path / "plain", resume=False)
    assert contents(tmp_path / "index") == contents(tmp_path / "plain")
    assert names(tmp_path) == ["index", "plain"]


def test_what_cannot_be_resumed(collection, tmp_path):
    with pytest.raises(ValueError, match="resume needs a path, for what is done is kept beside it"):
        Index.build(collection, resume=True, progress=False)
    with pytest.raises(ValueError, match="resume needs documents that can be read again, got an iterator"):
        Index.build(iter(list(collection)), tmp_path / "index", resume=True, progress=False)
    assert not names(tmp_path)
