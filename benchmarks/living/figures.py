"""The measurements of `python -m benchmarks.living`: each takes an empty folder and gives plain numbers."""

import multiprocessing
import time
from functools import partial

import numpy as np

from lateint import Index, Ragged, train_codec

DIM = 32


def kills(folder, count):
    """``kill -9`` of a writer at random instants."""
    from kills import run

    return run(folder / "index", count or 10_000, seed=1)


def cuts(folder, count):
    """Power cuts after every call of a writer; each state they might leave is opened and searched."""
    from test_power_cuts import cut_everywhere

    states, seed = 0, 100
    while states < (count or 20_000):
        states += cut_everywhere(folder / f"index-{seed}", folder / "cut", seed, steps=8, most=12)
        seed += 1
    return {"states": states, "histories": seed - 100, "lost": 0, "half visible": 0}


def collection(rng, documents, length=8, centres=200):
    """Short documents of unit tokens around a few centres."""
    lengths = np.full(documents, length)
    around = np.random.default_rng(0).standard_normal((centres, DIM)).astype(np.float32)
    tokens = around[rng.integers(0, centres, int(lengths.sum()))]
    tokens += 0.5 * rng.standard_normal(tokens.shape, dtype=np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return Ragged.from_lengths(tokens, lengths)


def adds(folder, count):
    """Seconds of an add of 1,000 documents and of a delete of 100, by the size of the index; median of several."""
    rng, found = np.random.default_rng(0), {}
    sizes = [10_000, 100_000, 1_000_000]
    codec = train_codec(collection(rng, 20_000), ncentroids=2_000, progress=False)
    for size in sizes:
        path = folder / str(size)
        index = Index.build(collection(rng, size), path, codec=codec, progress=False)
        rows = {"add 1,000": [], "delete 100": [], "add 1,000 (CPU)": [], "delete 100 (CPU)": []}
        for turn in range(count or 7):
            new, gone = collection(rng, 1_000), rng.choice(size // 10, 100, replace=False) + turn * (size // 10)
            for name, call in (
                ("add 1,000", partial(index.add, new)),
                ("delete 100", partial(index.delete, gone)),
            ):
                start, cpu = time.perf_counter(), time.process_time()
                call()
                rows[name].append(time.perf_counter() - start)
                rows[f"{name} (CPU)"].append(time.process_time() - cpu)
        found[f"{size:,} documents"] = {name: float(np.median(times)) for name, times in rows.items()}
    one = collection(rng, 1)
    index = Index.open(folder / str(sizes[1]))
    cpu, start = time.process_time(), time.perf_counter()
    singles = 1_000
    for _ in range(singles):
        index.add(one)
    found["add 1, CPU seconds"] = (time.process_time() - cpu) / singles
    found["add 1, seconds"] = (time.perf_counter() - start) / singles
    found["segments after 1,000 adds of 1"] = index.stats()["segments"]
    found["documents a token"] = 8
    return found


def segments(folder, count):
    """Opening, searching and bytes of one index in 1 segment and in 64."""
    rng, many = np.random.default_rng(0), count or 64
    documents = [collection(rng, 20_000 // many, length=64) for _ in range(many)]
    whole = Ragged.from_lengths(
        np.concatenate([part.tokens for part in documents]), np.concatenate([part.lengths for part in documents])
    )
    one = Index.build(whole, folder / "one", progress=False, ncentroids=4_000)
    cut = Index.build(documents[0], folder / "many", codec=one.codec, progress=False)
    from lateint.changing import compaction

    compaction.FACTOR, factor = 1 << 20, compaction.FACTOR  # nothing is joined
    for part in documents[1:]:
        cut.add(part)
    compaction.FACTOR = factor
    queries = list(collection(rng, 200, length=32))
    found = {}
    for name in ("one", "many"):
        opened = [_seconds_and_cpu(lambda name=name: Index.open(folder / name)) for _ in range(20)]
        index = Index.open(folder / name)
        for query in queries:
            index.search(query, 10, threads=1)
        found[name] = {
            "segments": index.stats()["segments"],
            "open ms": 1e3 * min(opened)[0],
            "open ms of CPU": 1e3 * min(cpu for _, cpu in opened),
            "bytes a token": index.stats()["bytes_per_token"]["all"],
        }
    found["many"] |= _until_joined(Index.open(folder / "many"), queries)
    pair = {name: Index.open(folder / name) for name in ("one", "many")}
    times, cpu = {name: [] for name in pair}, {name: [] for name in pair}
    for query in queries:  # until what is joined is joined
        for index in pair.values():
            index.search(query, 10, threads=1)
    for turn, query in enumerate(queries * 3):  # in turn, so that whatever else runs meets both
        for name in list(pair)[:: 1 if turn % 2 else -1]:
            took = _seconds_and_cpu(lambda name=name, query=query: pair[name].search(query, 10, threads=1))
            times[name].append(took[0])
            cpu[name].append(took[1])
    for name in pair:
        found[name]["p50 ms"] = 1e3 * float(np.median(times[name]))
        found[name]["p50 ms of CPU"] = 1e3 * float(np.median(cpu[name]))
    for which in ("p50 ms", "p50 ms of CPU"):
        found[f"ratio of {which}"] = found["many"][which] / found["one"][which]
    cut.compact(full=True)
    found["after compact(full=True)"] = {"bytes a token": cut.stats()["bytes_per_token"]["all"]}
    found["bytes ratio"] = cut.stats()["bytes"] / one.stats()["bytes"]
    return found


def _until_joined(index, queries):
    """What the first searches take, and how many there are before the lists of small segments are joined."""
    engine, times, runs = index._snapshot.engine, [], []
    for query in queries:
        times.append(_seconds_and_cpu(lambda query=query: index.search(query, 10, threads=1))[1])
        runs.append(engine.runs)
    first = runs.index(runs[-1])
    return {
        "pieces of a list": runs[-1],
        "searches until they are joined": first + 1,
        "slowest of these, ms of CPU": 1e3 * max(times[: first + 1]),
    }


def ids(folder, count):
    """Opening an index of so many string ids and looking up 1,000 of them."""
    size = count or 1_000_000
    rng = np.random.default_rng(0)
    names = [f"document-{number:016x}" for number in rng.permutation(size).tolist()]
    Index.build(collection(rng, size, length=1), folder / "index", ids=names, progress=False, ncentroids=1_000)
    wanted = [names[i] for i in rng.choice(size, 1_000, replace=False)]
    opened, looked, both = [], [], []
    for _ in range(20):
        start = time.perf_counter()
        index = Index.open(folder / "index")
        between = time.perf_counter()
        index._snapshot.ids.positions(wanted, "ids")
        end = time.perf_counter()
        opened.append(between - start)
        looked.append(end - between)
        both.append(end - start)
    return {
        "ids": size,
        "open ms": 1e3 * float(np.median(opened)),
        "look up 1,000 ms": 1e3 * float(np.median(looked)),
        "both ms, median": 1e3 * float(np.median(both)),
        "both ms, best": 1e3 * min(both),
    }


def readers(folder, count):
    """Searches in 4 processes, quiet and while a writer adds, deletes and compacts without pause."""
    rng = np.random.default_rng(0)
    Index.build(collection(rng, 20_000), folder / "index", progress=False, ncentroids=1_000)
    total, found = count or 100_000, {}
    context = multiprocessing.get_context("spawn")
    for name in ("quiet", "while another writes"):
        stop = context.Event()
        writer = context.Process(target=_write, args=(folder / "index", stop))
        if name != "quiet":
            writer.start()
        with context.Pool(4) as pool:
            times = np.concatenate(pool.starmap(_search, [(folder / "index", total // 4, i) for i in range(4)]))
        stop.set()
        if name != "quiet":
            writer.join()
        found[name] = {
            "searches": len(times),
            "failed": int(np.isnan(times).sum()),
            **{f"p{p} ms": 1e3 * float(np.nanpercentile(times, p)) for p in (50, 99)},
        }
    found["commits meanwhile"] = Index.open(folder / "index").generation
    found["p99 ratio"] = found["while another writes"]["p99 ms"] / found["quiet"]["p99 ms"]
    return found


def _write(path, stop):
    rng, index = np.random.default_rng(1), Index.open(path)
    while not stop.is_set():
        index.add(collection(rng, 100))
        index.delete(rng.choice(index.ids, 100, replace=False))
        if index.generation % 20 == 0:
            index.compact()


def _search(path, count, seed):
    index, queries = Index.open(path), list(collection(np.random.default_rng(seed), 64, length=16))
    times = np.full(count, np.nan)
    for i in range(count):
        try:
            if i % 100 == 0:
                index.refresh()
            times[i] = _seconds(lambda i=i: index.search(queries[i % 64], 10, threads=1))
        except Exception as error:
            print(f"search {i}: {error}")
    return times


def _seconds_and_cpu(call):
    """CPU of this thread, on which a search with one thread stays: it says more where others use the machine."""
    cpu, start = time.thread_time(), time.perf_counter()
    call()
    return time.perf_counter() - start, time.thread_time() - cpu


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
