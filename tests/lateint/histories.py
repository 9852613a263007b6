"""Random histories of an index, and what must be there after each step of them."""

from dataclasses import replace
from datetime import date, datetime

import numpy as np

from lateint import FieldError, Index
from lateint.changing import compaction

DIM = 8
BESIDES = ("texts", "metadata", "sparse")


def documents(rng, count):
    """``count`` documents of unit tokens."""
    found = []
    for _ in range(count):
        tokens = rng.standard_normal((int(rng.integers(1, 9)), DIM)).astype(np.float32)
        found.append(tokens / np.linalg.norm(tokens, axis=1, keepdims=True))
    return found


def fields(rng, count):
    """Of ``count`` documents: a text, metadata and a sparse vector, often none."""
    texts = [
        str(rng.choice(["red fox", "\u00fcber", "", "x" * 50, "fox " * 260, "dog \u00fcber dog"]))
        if rng.random() < 0.7
        else None
        for _ in range(count)
    ]
    return [(text, _metadata(rng), _vector(rng)) for text in texts]


def _vector(rng):
    if rng.random() < 0.3:
        return None
    terms = [term for term in ("fox", 7, "\u00fcber", "1000") if rng.random() < 0.6]
    return {term: float(rng.choice([0, 0.25, 1.1, 3, 60_000, 1e-7])) for term in terms}


def _metadata(rng):
    if rng.random() < 0.3:
        return {}
    values = [None, True, False, 7, -300, 2**60, 2.5, float("inf"), "a", "\u00fc%_", [], ["a", 1], [2, 2], {"deep": 1},
              [{"x": 1}], datetime(2024, 5, 17, 9, 30), date(1999, 1, 2)]  # fmt: skip
    names = [name for name in ("lang", "year", "tags", "a.b") if rng.random() < 0.6]
    return {name: values[rng.integers(len(values))] for name in names}


QUERIES = documents(np.random.default_rng(99), 3)
SPARSE = [{"fox": 1.0, "7": 0.5}, {"\u00fcber": 2, "fox": 0.1, "nothing": 1}, {1000: 1e-3}]
TEXTS = ["red fox", "\u00fcber dog fox", "nothing"]


def answers(index, queries=QUERIES):
    """Ids in order, and hits to the bit for several settings; once of all documents, so that none may differ."""
    found = [index.ids.tolist(), [(one.text, one.metadata) for one in index.documents], dict(index.documents.fields)]
    for k, settings in ((len(index) + 1, {"exhaustive": True}), (4, {}), (4, {"nprobe": 1, "candidates": 3})):
        for hits in index.search(queries, k, **settings):
            found.append((hits.ids.tolist(), hits.scores.tobytes()))
    if index.analyzer is not None:
        for Q in (None, queries):
            for hits in index.search(Q, 4, text=TEXTS):
                found.append((hits.ids.tolist(), hits.scores.tobytes()))
    try:
        for Q in (None, queries):
            for hits in index.search(Q, 4, sparse=SPARSE):
                found.append((hits.ids.tolist(), hits.scores.tobytes()))
    except ValueError as error:
        assert "sparse needs an index whose documents have sparse vectors" in str(error)
        found.append(None)
    for condition in CONDITIONS:
        try:
            hits = index.search(queries[0], 4, filter=condition)
            found.append((index.count(condition), hits.ids.tolist(), hits.scores.tobytes()))
        except FieldError:
            found.append(None)
    return found


CONDITIONS = [
    {"lang": {"$gte": "a"}},
    {"year": {"$ne": 7}},
    {"$not": {"tags": {"$contains": 2}}},
    {"a.b": {"$exists": True}},
    {"tags": {"$like": "%\\%%"}},
    {"year": {"$lt": {"$date": "2024-01-01"}}},
]


def expected(live, codec):
    """`answers` of an index built from these documents by id, in order, with this codec, whose texts are searched."""
    if not live:
        nothing = ([], b"")
        return [[], [], {}, *[nothing] * (5 * len(QUERIES)), *[None] * (1 + len(CONDITIONS))]
    return answers(built(live, codec=codec))


def numbered(seed=0, count=20):
    """`documents` by id, which are their positions."""
    return dict(enumerate(documents(np.random.default_rng(seed), count)))


def built(live, path=None, **settings):
    """An index of documents by id, whose texts are searched: tokens alone, or (tokens, text, metadata, vector)."""
    settings = _columns(live.values()) | {"text_search": True} | settings
    return Index.build(settings.pop("doc_embs"), path, ids=list(live), progress=False, **settings)


def _columns(documents):
    whole = [one if isinstance(one, tuple) else (one, None, None, None) for one in documents]
    return dict(zip(("doc_embs", *BESIDES), (list(column) for column in zip(*whole, strict=True)), strict=True))


def step(index, live, rng, *, names=int):
    """One random change of an index; returns the documents by id that are there afterwards."""
    operations, after = plan(live, rng, names)
    apply(index, operations)
    return after


def plan(live, rng, names=int):
    """A random change: calls of an index, and the documents by id that are there afterwards."""
    kind = rng.choice(["add", "add", "add", "update", "fields", "delete", "compact", "full", "transaction"])
    live = dict(live)
    if kind == "add" or not live:
        new = dict(zip(_new(rng, live, int(rng.integers(1, 5)), names), carrying(rng, 4), strict=False))
        return [("add", new)], live | new
    if kind == "fields":
        some = [list(live)[i] for i in rng.choice(len(live), min(len(live), int(rng.integers(1, 4))), replace=False)]
        which = [name for name in BESIDES if rng.random() < 0.5] or ["texts"]
        new = {}
        for name, given in zip(some, fields(rng, len(some)), strict=True):
            before = live.pop(name)
            tokens, *rest = before if isinstance(before, tuple) else (before, None, None, None)
            mixed = [one if what in which else kept for what, one, kept in zip(BESIDES, given, rest, strict=True)]
            new[name] = (tokens, *mixed)
        return [("+".join(which), new)], live | new
    if kind in ("update", "delete"):
        some = [list(live)[i] for i in rng.choice(len(live), min(len(live), int(rng.integers(1, 4))), replace=False)]
        new = dict(zip(some, carrying(rng, len(some)), strict=True)) if kind == "update" else {}
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
            index.add(ids=list(what), **_columns(what.values()))
        elif kind == "update":
            index.update(list(what), **_columns(what.values()))
        elif set(kind.split("+")) <= set(BESIDES):
            columns = _columns(what.values())
            index.update(list(what), **{name: columns[name] for name in kind.split("+")})
        elif kind == "delete":
            assert index.delete(what) == len(what)
        elif kind == "transaction":
            with index.transaction():
                apply(index, what)
        else:
            index.compact(full=what)


def carrying(rng, count):
    """As `documents`, often with something besides each: (tokens, text, metadata, vector)."""
    tokens = documents(rng, count)
    if rng.random() < 0.3:
        return tokens
    return [(one, *rest) for one, rest in zip(tokens, fields(rng, count), strict=True)]


def _new(rng, live, count, names):
    found = []
    while len(found) < count:
        name = names(rng.integers(0, 1 << 40))
        if name not in live and name not in found:
            found.append(name)
    return found


def forgetful(self, parts, pieces=None, init=compaction.Joined.__init__):
    """In place of `compaction.Joined.__init__`: a fault that histories must notice, deleted documents come back."""
    init(self, [replace(part, live=None) for part in parts], pieces)
