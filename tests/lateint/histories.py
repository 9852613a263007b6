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
    """Ids in order, and hits to the bit for several settings."""
    found = [index.ids.tolist()]
    for settings in ({"exhaustive": True}, {}, {"nprobe": 1, "candidates": 3}):
        for hits in index.search(queries, 4, **settings):
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
    live = dict(live)
    kind = rng.choice(["add", "add", "add", "update", "delete", "compact", "full", "transaction"])
    if kind == "add" or not live:
        count = int(rng.integers(1, 5))
        new = dict(zip(_new(rng, live, count, names), documents(rng, count), strict=True))
        index.add(list(new.values()), ids=list(new))
        live |= new
    elif kind in ("update", "delete"):
        some = [list(live)[i] for i in rng.choice(len(live), min(len(live), int(rng.integers(1, 4))), replace=False)]
        _change(index, live, some, kind, rng)
    elif kind == "transaction":
        with index.transaction():
            for _ in range(int(rng.integers(1, 4))):
                live = step(index, live, rng, names=names)
    else:
        index.compact(full=kind == "full")
    return live


def _new(rng, live, count, names):
    found = []
    while len(found) < count:
        name = names(rng.integers(0, 1 << 40))
        if name not in live and name not in found:
            found.append(name)
    return found


def _change(index, live, some, kind, rng):
    if kind == "delete":
        assert index.delete(some) == len(some)
    else:
        new = documents(rng, len(some))
        index.update(some, new)
    for name in some:
        del live[name]
    if kind == "update":
        live |= dict(zip(some, new, strict=True))
