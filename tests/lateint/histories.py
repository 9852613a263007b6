"""Random histories of an index, and what must be there after each step of them."""

import numpy as np

from lateint import Index

DIM = 8


def documents(rng, count):
    """``count`` documents of unit tokens."""
    found = []
    for _ in range(count):
        tokens = rng.standard_normal((int(rng.integers(1, 9)), DIM)).astype(np.float32)
        found.append(tokens / np.linalg.norm(tokens, axis=1, keepdims=True))
    return found


QUERIES = documents(np.random.default_rng(99), 3)


def answers(index, queries=QUERIES):
    """Ids in order, and hits to the bit for several settings; once of all documents, so that none may differ."""
    found = [index.ids.tolist()]
    for k, settings in ((len(index) + 1, {"exhaustive": True}), (4, {}), (4, {"nprobe": 1, "candidates": 3})):
        for hits in index.search(queries, k, **settings):
            found.append((hits.ids.tolist(), hits.scores.tobytes()))
    return found


def expected(live, codec):
    """`answers` of an index built from these documents by id, in order, with this codec."""
    if not live:
        nothing = ([], b"")
        return [[], *[nothing] * (3 * len(QUERIES))]
    return answers(Index.build(list(live.values()), ids=list(live), codec=codec, progress=False))


def step(index, live, rng, *, names=int):
    """One random change of an index; returns the documents by id that are there afterwards."""
    operations, after = plan(live, rng, names)
    apply(index, operations)
    return after


def plan(live, rng, names=int):
    """A random change: calls of an index, and the documents by id that are there afterwards."""
    kind = rng.choice(["add", "add", "add", "update", "delete", "compact", "full", "transaction"])
    live = dict(live)
    if kind == "add" or not live:
        new = dict(zip(_new(rng, live, int(rng.integers(1, 5)), names), documents(rng, 4), strict=False))
        return [("add", new)], live | new
    if kind in ("update", "delete"):
        some = [list(live)[i] for i in rng.choice(len(live), min(len(live), int(rng.integers(1, 4))), replace=False)]
        new = dict(zip(some, documents(rng, len(some)), strict=True)) if kind == "update" else {}
        for name in some:
            del live[name]
        return [(kind, new or some)], live | new
    if kind == "transaction":
        inside = []
        for _ in range(int(rng.integers(1, 4))):
            operations, live = plan(live, rng, names)
            inside += operations
        return [("transaction", inside)], live
    return [("compact", kind == "full")], live


def apply(index, operations):
    """Makes the calls."""
    for kind, what in operations:
        if kind == "add":
            index.add(list(what.values()), ids=list(what))
        elif kind == "update":
            index.update(list(what), list(what.values()))
        elif kind == "delete":
            assert index.delete(what) == len(what)
        elif kind == "transaction":
            with index.transaction():
                apply(index, what)
        else:
            index.compact(full=what)


def _new(rng, live, count, names):
    found = []
    while len(found) < count:
        name = names(rng.integers(0, 1 << 40))
        if name not in live and name not in found:
            found.append(name)
    return found
