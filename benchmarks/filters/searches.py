"""Searches under filters: how much of the best they find, and how long they take; one thread."""

import time

import numpy as np

from benchmarks import embeddings
from lateint import Index

K = 10
SHARES = (0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
QUERIES, TURNS = 100, 3


def collection(folder, count):
    """``count`` documents, each of parts of two documents of ``folder``; their tokens, lengths and mean tokens."""
    rng, source = np.random.default_rng(0), embeddings.load(folder)
    offsets, parts = source.offsets, []
    for _ in range(count):
        first, second = rng.integers(0, len(source.lengths), 2)
        length = int(rng.integers(40, 200))
        one = source.tokens[offsets[first] : offsets[first] + min(source.lengths[first], length)]
        other = source.tokens[offsets[second] : offsets[second] + min(source.lengths[second], 40)]
        parts.append(np.concatenate([one, other]))
    means = np.stack([part.astype(np.float32).mean(0) for part in parts])
    return np.concatenate(parts), np.array([len(part) for part in parts]), means


def measure(folder, count):
    """Recall against the exhaustive scan of the same documents, and medians in ms."""
    tokens, lengths, means = collection(folder, count)
    queries = [query.tokens for query in embeddings.fixed_queries(folder)[:QUERIES]]
    rng = np.random.default_rng(1)
    towards = means @ rng.standard_normal(means.shape[1])
    ranks = {"random": rng.permutation(count), "by content": np.argsort(np.argsort(towards))}
    metadata = [{name.split()[-1]: int(rank[i]) for name, rank in ranks.items()} for i in range(count)]
    index = Index.build(tokens, lengths=lengths, metadata=metadata, progress=False)
    searching = {"documents": count, "tokens": index.tokens, "centroids": index.stats()["centroids"]}
    searching["unfiltered"] = {"recall": recall(index, queries, {})}
    for name in ranks:
        for share in SHARES:
            condition = {"filter": {name.split()[-1]: {"$lt": max(1, round(share * count))}}}
            spent = timed(index, queries, condition)
            plan = index.search(queries[0], K, **condition).plan
            searching[f"{name}, {share:.2%}"] = {
                "documents": plan.documents,
                "plan": plan.kind,
                "nprobe": plan.nprobe,
                "recall": recall(index, queries, condition),
                **spent,
            }
    return {**searching, "subsets": subsets(index, queries, count)}


def subsets(index, queries, count):
    """Of ids, of masks, and prepared."""
    rng, found = np.random.default_rng(2), {}
    for share in (1.0, 0.1):
        ids = np.sort(rng.permutation(count)[: round(share * count)])
        mask = np.isin(index.ids, ids)
        ways = {"list of ids": ids.tolist(), "array of ids": ids, "mask": mask, "prepared": index.subset(ids)}
        for name, subset in ways.items():
            found[f"{name}, {share:.0%}"] = timed(index, queries[:50], {"subset": subset})
    return found


def timed(index, queries, settings):
    """The median over queries of a search's time, and of one without these settings, in ms; the best of `TURNS` each,
    in turn."""
    times = {"filtered": [], "unfiltered": []}
    for query in queries:
        best = dict.fromkeys(times, float("inf"))
        for name, given in (("unfiltered", {}), ("filtered", settings)) * TURNS:
            start = time.perf_counter()
            index.search(query, K, threads=1, **given)
            best[name] = min(best[name], time.perf_counter() - start)
        for name, spent in best.items():
            times[name].append(spent)
    filtered, unfiltered = (1e3 * float(np.median(times[name])) for name in times)
    return {"ms": filtered, "unfiltered ms": unfiltered, "times unfiltered": filtered / unfiltered}


def recall(index, queries, settings):
    """The share of the best `K` that a search finds."""
    shares = []
    for query in queries:
        best = set(index.search(query, K, exhaustive=True, **settings).ids.tolist())
        shares.append(len(best & set(index.search(query, K, **settings).ids.tolist())) / max(1, len(best)))
    return float(np.mean(shares))
