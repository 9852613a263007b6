"""A collection that is built over another one, and killed at instants that the build does not choose."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from preflmr import PreFLMR  # noqa: E402
from preflmr.searcher import Searcher  # noqa: E402

# Builds over the same folder again and again; a line on standard output says that a build begins.
PROGRAM = """
import sys
from preflmr import PreFLMR
from preflmr.searcher import Searcher

model = PreFLMR.from_pretrained(sys.argv[1])
while True:
    print("begins", flush=True)
    Searcher.build(model, sys.argv[2], sys.argv[3], overwrite=True, progress=False)
"""


def test_a_kill_leaves_the_old_collection_or_the_new_one(make_tiny, tmp_path):
    make_tiny(query_maxlen=64).save_pretrained(tmp_path / "model")
    model = PreFLMR.from_pretrained(tmp_path / "model")
    rows = [{"id": f"p{n}", "text": f"passage {n}"} for n in range(12)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Searcher.build(model, tmp_path / "p.jsonl", tmp_path / "index", progress=False)
    command = [sys.executable, "-c", PROGRAM, tmp_path / "model", tmp_path / "p.jsonl", tmp_path / "index"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    wait = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        process.stdout.readline()  # one has been built, a second one begins
        time.sleep(wait.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert len(Searcher.open(tmp_path / "index", model).search(["passage"], k=12)[0]) == 12
    Searcher.build(model, tmp_path / "p.jsonl", tmp_path / "index", overwrite=True, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "model", "p.jsonl"]  # no leftovers


def test_a_kill_between_removing_and_renaming_loses_nothing(make_tiny, tmp_path, monkeypatch):
    """The instant at which the old one used to be gone, and the new one not yet there."""
    import shutil

    model = make_tiny(query_maxlen=64)
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "words"}\n')
    Searcher.build(model, tmp_path / "p.jsonl", tmp_path / "index", progress=False)
    remove = shutil.rmtree

    class Killed(BaseException):
        pass

    def killed(path, *given, **more):
        remove(path, *given, **more)
        if not (tmp_path / "index").exists():
            raise Killed

    monkeypatch.setattr(shutil, "rmtree", killed)
    Searcher.build(model, tmp_path / "p.jsonl", tmp_path / "index", overwrite=True, progress=False)
    monkeypatch.undo()
    assert Searcher.open(tmp_path / "index", model).search(["words"])[0][0].id == "a"
