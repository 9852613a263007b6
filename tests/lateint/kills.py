"""``kill -9`` of a writer at random instants, and what must be there afterwards.

``python kills.py FOLDER COUNT SEED`` prints what it found as JSON. Writers are forked, so that a kill costs
milliseconds; one thread, for a fork has no others.
"""

import json
import os
import pickle
import signal
import struct
import sys
import time
from pathlib import Path

import numpy as np
from histories import answers, apply, built, carrying, expected, plan

from lateint import Index


def write_for_ever(folder, live, seed, pipe):
    """In a child: says what is to be, does it, says so."""
    index, rng = Index.open(folder), np.random.default_rng(seed)
    while True:
        operations, live = plan(live, rng)
        _say(pipe, ("plan", live))
        apply(index, operations)
        _say(pipe, ("done", index.generation))
        if len(live) > 60:
            gone, live = list(live)[:50], dict(list(live.items())[50:])  # so that the test does not grow
            _say(pipe, ("plan", live))
            index.delete(gone)
            _say(pipe, ("done", index.generation))


def _say(pipe, what):
    data = pickle.dumps(what)
    os.write(pipe, struct.pack("<I", len(data)) + data)


def heard(data):
    """Messages, but for one that was cut."""
    at, found = 0, []
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        if at + 4 + size > len(data):
            break
        found.append(pickle.loads(data[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def killed(folder, live, seed, wait):
    """Forks a writer, kills it, and returns the states that may be there: the last acknowledged one is the first."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            write_for_ever(folder, live, seed, writer)
        finally:
            os._exit(1)
    os.close(writer)
    data = os.read(reader, 1 << 20)  # from its first plan on, however long it took to start
    end = time.monotonic() + wait
    os.set_blocking(reader, False)
    while time.monotonic() < end:
        try:
            data += os.read(reader, 1 << 20)
        except BlockingIOError:
            time.sleep(min(0.001, wait / 10))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.set_blocking(reader, True)
    while part := os.read(reader, 1 << 20):
        data += part
    os.close(reader)
    states = [live]
    commits = 0
    for kind, what in heard(data):
        if kind == "plan":
            states.append(what)
        else:
            states, commits = states[-1:], commits + 1
    return states, commits


def run(folder, count, seed):
    """Kills so many writers one after the other; returns counts."""
    rng = np.random.default_rng(seed)
    live = dict(enumerate(carrying(rng, 20)))
    codec = built(live, folder, ncentroids=5).codec
    found = {"kills": 0, "commits": 0, "half done": 0, "leftovers": 0}
    for _ in range(count):
        # Often within the first commit: that is 1 to 20 ms long.
        states, commits = killed(folder, live, int(rng.integers(1 << 40)), float(rng.exponential(0.04)))
        names = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
        index = Index.open(folder)
        there = answers(index)
        possible = [state for state in states if list(state) == index.ids.tolist()]
        assert any(there == expected(state, codec) for state in possible), "neither what was there nor what was to be"
        live = possible[-1] if there == expected(possible[-1], codec) else possible[0]
        found["kills"] += 1
        found["commits"] += commits
        found["half done"] += len(states) > 1
        if names - {*index._snapshot.manifest.files, "index.json", "lock"}:
            found["leftovers"] += 1
            index.delete([index.ids[0]] if len(index) else [])
            live = dict(list(live.items())[1:])
            names = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}
            assert names == {*index._snapshot.manifest.files, "index.json", "lock"}, "leftovers stayed"
    assert Index.verify(folder).problems == []
    return found


if __name__ == "__main__":
    os.environ["LATEINT_NUM_THREADS"] = "1"
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
