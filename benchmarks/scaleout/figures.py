"""What docs/scale-out.md says, measured on generated tokens around a few hundred centres."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from functools import cache
from itertools import pairwise

import numpy as np

from lateint import Index, LostError, Shards, train_codec

DIM, LENGTH, SLOW = 64, 16, 0.2


def tokens(count, length, seed):
    """``count`` documents or queries of unit tokens."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((300, DIM))
    made = centres[rng.integers(0, 300, (count, length))] + 0.6 * rng.standard_normal((count, length, DIM))
    return list((made / np.linalg.norm(made, axis=2, keepdims=True)).astype(np.float32))


def cut(documents, count, folder=None):
    """One index of the documents, and ``count`` of runs of them, with one codec."""
    codec = train_codec(documents, progress=False)
    whole = Index.build(documents, codec=codec, progress=False)
    parts = []
    for first, last in pairwise(np.linspace(0, len(documents), count + 1).astype(int).tolist()):
        path = None if folder is None else folder / f"part-{first:06d}"
        ids = np.arange(first, last)
        parts.append(Index.build(documents[first:last], path, ids=ids, codec=codec, progress=False))
    return whole, parts


def same(found, expected):
    return found.ids.tolist() == expected.ids.tolist() and found.scores.tobytes() == expected.scores.tobytes()


def shards(folder, count):
    """Ten shards beside one index."""
    count = count or 200
    documents, queries = tokens(3000, LENGTH, 0), tokens(count, 8, 2)
    whole, parts = cut(documents, 10)
    with Shards(parts, timeout=60) as many:
        exact = whole.search(queries, 10, exhaustive=True)
        equal = sum(same(*pair) for pair in zip(many.search(queries, 10, exhaustive=True), exact, strict=True))
        recall = {
            name: float(np.mean([len({*found.ids.tolist()} & {*best.ids.tolist()}) / 10 for found, best in pairs]))
            for name, pairs in (
                ("one index", list(zip(whole.search(queries, 10), exact, strict=True))),
                ("ten shards", list(zip(many.search(queries, 10), exact, strict=True))),
            )
        }
    return {"documents": len(documents), "queries": count, "equal bit for bit": equal, "recall": recall}


class Slow:
    """A place whose answers come later, when told to."""

    def __init__(self, index, path):
        self.index, self.path, self.delay = index, path, 0.0

    def __getattr__(self, name):
        return getattr(self.index, name)

    def stats(self):
        return self.index.stats()

    def search(self, *arguments, **settings):
        time.sleep(0.005 + self.delay)  # as long as a network takes
        return self.index.search(*arguments, **settings)


def hedging(folder, count):
    """A shard at two or three places, of which one is slow, and one whose places are not: each query goes to both, one
    after the other, so that whatever else the machine does meets both. Which place is slow changes ten times."""
    whole, _ = cut(tokens(1000, LENGTH, 0), 1)
    return {f"{places} places": _hedged(whole, places, count or 4000) for places in (2, 3)}


def _hedged(whole, count, searches):
    queries = tokens(50, 8, 2)
    places = {kind: [Slow(whole, f"{kind} {number}") for number in range(count)] for kind in ("quiet", "slow")}
    took = {kind: [] for kind in places}
    with ExitStack() as stack:
        shards = {kind: stack.enter_context(Shards(some[:1], replicas=[some[1:]])) for kind, some in places.items()}
        for query in queries * 2:
            for one in shards.values():
                one.search(query)
        before = shards["slow"].stats()["shards"][0]
        for number in range(searches):
            for turn, place in enumerate(places["slow"]):
                place.delay = SLOW if turn == 10 * number // searches % count else 0.0
            for kind in sorted(shards, reverse=bool(number % 2)):
                started = time.perf_counter()
                found = shards[kind].search(queries[number % 50])
                took[kind].append(time.perf_counter() - started)
                assert found.coverage == 1.0
        after = shards["slow"].stats()["shards"][0]
    p50, p99 = ({kind: 1000 * float(np.quantile(times, q)) for kind, times in took.items()} for q in (0.5, 0.99))
    return {
        "searches": searches,
        "p50 ms": p50,
        "p99 ms": p99,
        "p99 slow / quiet": p99["slow"] / p99["quiet"],
        "sent on top": (after["extra"] - before["extra"]) / (after["requests"] - before["requests"]),
    }


def merge(folder, count):
    """Parts of 20 documents each."""
    count = count or 100
    whole, parts = cut(tokens(20 * count, LENGTH, 0), count, folder)
    times, cpu = [], []
    for number in range(3):
        started, worked = time.perf_counter(), time.process_time()
        merged = Index.merge([part.path for part in parts], folder / f"merged-{number}")
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - worked)
    (query,) = tokens(1, 8, 3)
    equal = same(merged.search(query, 100, exhaustive=True), whole.search(query, 100, exhaustive=True))
    return {"parts": count, "seconds": times, "seconds of CPU": cpu, "equal": equal}


def kills(folder, count):
    """Queries to four actors, of which one is killed again and again while a query is under way.

    Every other query takes what there is, the rest want all or an error. An answer is wrong unless its documents and
    scores are those of the shards that it claims, bit for bit.
    """
    import lateint_ray

    count = count or 10_000
    between = min(400, count // 5)
    documents, queries = tokens(1000, LENGTH, 0), tokens(50, 8, 2)
    whole, parts = cut(documents, 4, folder)

    @cache
    def expected(query, lost):
        left = np.concatenate([part.ids for part in parts if str(part.path) not in lost])
        return whole.search(queries[query], 10, exhaustive=True, subset=left)

    lateint_ray.start(num_cpus=4, object_store_memory=1 << 30, logging_level="error")
    actors = [lateint_ray.ActorIndex(part.path, num_cpus=0.1, threads=1, timeout=20) for part in parts]
    seen, kill, ended, next_kill, rng = Counter(), None, [], between, np.random.default_rng(3)
    with Shards(actors, timeout=20) as many:
        many.search(queries[0], 10)
        for number in range(count):
            query, partial = number % len(queries), number % 2 == 0
            if number == next_kill:
                kill = Kill(actors[len(ended) % 4], float(rng.uniform(0, 0.02)))
            began = time.monotonic()
            try:
                found = many.search(queries[query], 10, exhaustive=True, partial=partial)
            except LostError:
                seen["raised"] += 1
                seen["wrong"] += partial
                continue
            seen["wrong"] += not same(found, expected(query, frozenset(found.lost))) or bool(found.lost and not partial)
            seen["flagged"] += bool(found.lost)
            if kill is not None and kill.at is not None and began > kill.at and not found.lost:
                ended.append((time.monotonic() - kill.at, told(kill.actor, time.process_time)))
                kill, next_kill = None, number + between
    for actor in actors:
        actor.close()
    away, worked = np.array(ended).T
    return {
        "queries": count,
        "kills": len(ended),
        **{name: seen[name] for name in ("wrong", "flagged", "raised")},
        "seconds from a kill to a whole answer": {"median": float(np.median(away)), "most": float(max(away))},
        "of these, CPU of the new process": {"median": float(np.median(worked)), "most": float(max(worked))},
    }


class Kill:
    """``kill -9`` of the process of an actor after some seconds; ``at`` is when, None as long as it has not been."""

    def __init__(self, actor, after):
        self.actor, self.at, self._process = actor, None, told(actor, os.getpid)
        threading.Timer(after, self._now).start()

    def _now(self):
        os.kill(self._process, signal.SIGKILL)
        self.at = time.monotonic()


def told(actor, what):
    """What a function gives in the process of an actor."""
    import ray

    return ray.get(actor.actor.__ray_call__.remote(lambda _: what()))


def build(folder, count):
    """The same rows built by workers that are killed at some texts, and by workers that are not."""
    import json

    from ray_rows import Killing, Words, files, rows

    import lateint_ray

    count = count or 50
    parts, texts = 2 * count, rows(20 * count)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (folder / "kills").mkdir()
    lateint_ray.start(num_cpus=2, object_store_memory=1 << 30, logging_level="error")
    how = {"parts": parts, "workers": 2, "sample": 5 * count, "metadata": ["year"], "progress": False}
    lateint_ray.build(str(folder / "rows.jsonl"), folder / "quiet", encoder=Words, **how)
    deadly = [row["text"] for row in texts[::20]]
    started = time.perf_counter()
    killing = Killing(str(folder / "kills"), deadly, late=0.03)
    lateint_ray.build(str(folder / "rows.jsonl"), folder / "killed", encoder=killing, **how)
    return {
        "documents": len(texts),
        "parts": parts,
        "workers killed": len(list((folder / "kills").iterdir())),
        "identical files": files(folder / "quiet") == files(folder / "killed"),
        "seconds": time.perf_counter() - started,
    }
