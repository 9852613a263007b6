"""Searches under random filters on random documents, of which SQLite says for which a filter holds: how many hits are
outside of it.
"""

import sqlite3
from collections import Counter
from multiprocessing import get_context

import numpy as np

from lateint import FieldError, Index

DIM, LENGTH, K = 8, 2, 10  # tokens of a document; a query has one
FIELDS = ("a", "b", "c", "d")
VALUES = [None, 0, 1, -3, 7, 2**53, 0.5, -1e300, float("inf"), "", "a", "ab", "\u00fc", "it's", True, False]
WORDS = ["red", "fox", "blue", "hen"]
CONDITIONS, BATCH, SINGLE = 100, 240, 10  # of each index, and of each condition
COUNTED = ("indexes", "conditions", "wrong counts", "searches", "hits", "outside", "fewer than there are")
ORDERS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def measure(count, processes):
    """At least ``count`` searches; each process has a seed of its own."""
    share = -(-count // processes)
    with get_context("spawn").Pool(processes) as pool:
        found = sum(pool.starmap(told, [(share, seed) for seed in range(processes)]), Counter())
    plans = {name.removeprefix("plan "): n for name, n in sorted(found.items()) if name.startswith("plan ")}
    return {name: found[name] for name in COUNTED} | {"plans": plans}


def told(count, seed):
    """What at least ``count`` searches found."""
    rng, found = np.random.default_rng(seed), Counter()
    while found["searches"] < count:
        tell(rng, found)
    return found


def tell(rng, found):
    """Adds what searches of one index found; it consists of segments, and some of its documents are deleted."""
    index, rows = built(rng)
    base = sqlite3.connect(":memory:")
    base.execute(f"CREATE TABLE t (n INTEGER PRIMARY KEY, {', '.join(FIELDS)})")
    base.executemany("INSERT INTO t VALUES (?,?,?,?,?)", [(n, *(held(row.get(f)) for f in FIELDS)) for n, row in rows])
    found["indexes"] += 1
    for _ in range(CONDITIONS):
        tree, bind = condition(rng), []
        right = {n for (n,) in base.execute(f"SELECT n FROM t WHERE {sql(tree, bind)}", bind)}
        try:
            found["wrong counts"] += index.count(tree) != len(right)
        except FieldError:  # no document has the field
            continue
        found["conditions"] += 1
        for asked, settings in searches(rng):
            hits = index.search(**asked, k=K, filter=tree, threads=1, **settings)
            for one in hits if isinstance(hits, list) else [hits]:
                found["searches"] += 1
                found["hits"] += len(one)
                found["outside"] += sum(id not in right for id in one.ids.tolist())
                found["fewer than there are"] += one.plan.kind != "words" and len(one) < min(K, len(right))
                found[f"plan {one.plan.kind}"] += 1


def built(rng):
    """An index of several segments, and the metadata of its documents by id."""
    sizes = rng.integers(60, 200, 3)
    rows = {n: row(rng) for n in range(sizes.sum())}
    ids = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
    index = None
    for some in ids:
        given = {
            "texts": [" ".join(rng.choice(WORDS, 3)) for _ in some],
            "sparse": [{str(rng.choice(WORDS)): 1.5} for _ in some],
            "metadata": [rows[n] for n in some.tolist()],
            "ids": some,
        }
        tokens = rng.standard_normal((LENGTH * len(some), DIM)).astype(np.float32)
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        if index is None:
            index = Index.build(tokens, lengths=[LENGTH] * len(some), text_search=True, progress=False, **given)
        else:
            index.add(tokens, lengths=[LENGTH] * len(some), **given)
    gone = rng.choice(len(rows), len(rows) // 5, replace=False).tolist()
    index.delete(gone)
    return index, [(n, one) for n, one in rows.items() if n not in set(gone)]


def row(rng):
    return {field: VALUES[rng.integers(len(VALUES))] for field in FIELDS if rng.random() < 0.8}


def searches(rng):
    """Arguments of searches: a batch by tokens, and single queries by tokens, words, vectors, and both."""

    def query(*shape):
        return rng.standard_normal((*shape, DIM)).astype(np.float32)

    looks = [{}, {"nprobe": 1}, {"candidates": 8}, {"nprobe": 2, "candidates": 20}, {"exhaustive": True}]
    yield {"Q": query(BATCH, 1)}, looks[rng.integers(len(looks))]
    text, vector = str(rng.choice(WORDS)), {str(rng.choice(WORDS)): 1.0}
    yield {"Q": None}, {"text": text}
    yield {"Q": None}, {"sparse": vector}
    yield {"Q": query(1)}, {"text": text}
    yield {"Q": query(1)}, {"sparse": vector, "rerank": 20}
    for _ in range(SINGLE - 4):
        yield {"Q": query(1)}, looks[rng.integers(len(looks))]


def condition(rng, depth=0):
    """A filter as a mapping."""
    kind = rng.random()
    if depth < 3 and kind < 0.35:
        return {str(rng.choice(["$and", "$or"])): [condition(rng, depth + 1) for _ in range(rng.integers(1, 4))]}
    if depth < 3 and kind < 0.5:
        return {"$not": condition(rng, depth + 1)}
    field, some = str(rng.choice(FIELDS)), [VALUES[i] for i in rng.integers(1, len(VALUES), 3)]
    operator = str(rng.choice(["$eq", "$ne", "$in", "$nin", "$exists", *ORDERS]))
    value = {"$in": some, "$nin": some, "$exists": bool(rng.random() < 0.5)}.get(operator, some[0])
    return {field: {operator: value}}


def held(value):
    """As SQLite has it: booleans as blobs, for it has none."""
    return (b"t" if value else b"f") if isinstance(value, bool) else value


def sql(tree, bind):
    """The same as a condition of SQLite; values go into ``bind``."""
    ((key, what),) = tree.items()
    if key in ("$and", "$or"):
        return "(" + f" {key[1:].upper()} ".join(sql(part, bind) for part in what) + ")"
    if key == "$not":
        return f"(NOT {sql(what, bind)})"
    ((operator, value),) = what.items()
    if operator == "$exists":
        return f"({key} IS {'NOT ' if value else ''}NULL)"
    if operator in ORDERS:
        kind = "blob" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        bind.append(held(value))
        there = f"CASE typeof({key}) WHEN 'integer' THEN 'number' WHEN 'real' THEN 'number' ELSE typeof({key}) END"
        return f"(CASE WHEN {there} = '{kind}' THEN {key} {ORDERS[operator]} ? END)"
    values = value if operator in ("$in", "$nin") else [value]
    bind.extend(map(held, values))
    same = " OR ".join(f"{key} = ?" for _ in values)
    return f"({same})" if operator in ("$eq", "$in") else f"(NOT ({same}))"
