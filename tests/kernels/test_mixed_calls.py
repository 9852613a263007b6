"""All compiled functions at the same time, on many threads: what they share is the pool, and an engine's memory."""

import random
import threading

import numpy as np
import pytest
from random_index import make

from lateint_kernels import Ragged, Sketched, first_nonfinite_row, maxsim, maxsim_pairs, pool
from lateint_kernels.codes import centroids, residual
from lateint_kernels.codes.engine import Limits


def calls():
    """By name: a function of how many threads to use, which gives arrays."""
    rng = np.random.default_rng(0)
    made = make(rng, rng.integers(0, 9, 300).tolist(), count=40, cells=6, cuts=(100, 250))
    codec, queries, offsets = made.codec, rng.standard_normal((12, 40), dtype=np.float32), np.array([0, 5, 6, 12])
    rows, ids = made.rows, made.centroid_ids
    padded = np.full((len(rows), 64), 128, np.uint8)
    padded[:, : made.width] = rows
    documents = Ragged.from_lengths(rng.standard_normal((400, 40), dtype=np.float32), [8] * 50)
    sketched = Sketched.of(documents)
    batch = queries.reshape(4, 3, 40)
    pairs = np.array([0, 1, 2, 3, 3]), np.array([7, 40, 7, 1, 49])

    def search(limits, **settings):
        return lambda threads: made.engine.search(queries, offsets, 5, limits, threads=threads, **settings)

    def rotate(threads):
        return residual.rotate(
            documents.tokens, codec.mean, codec.rotation, codec.permutation, codec.step, threads=threads
        )

    scaled = rotate(1)
    few = np.arange(400, dtype=np.uint32) % 40
    return {
        "search": search(Limits(3, 20)),
        "search in cells": search(Limits(3, 20, cells=2)),
        "search among some": search(Limits(9, 100, patience=8), allowed=(np.arange(300) % 3 > 0).astype(np.uint8)),
        "exhaustive": lambda threads: made.engine.exhaustive(queries, offsets, 5, threads=threads),
        "probe": lambda threads: made.engine.probe(queries, offsets, 7, cells=3, threads=threads),
        "score": lambda threads: made.engine.score(queries, np.arange(300), threads=threads),
        "maxsim": lambda threads: maxsim(batch, documents, threads=threads),
        "maxsim of int8": lambda threads: maxsim(
            batch.astype(np.int8), documents.tokens.astype(np.int8)[None], threads=threads
        ),
        "maxsim of a sketch": lambda threads: maxsim(batch, sketched, threads=threads),
        "maxsim_pairs": lambda threads: maxsim_pairs(batch, documents, *pairs, threads=threads),
        "pool": lambda threads: pool(documents, 3, threads=threads).tokens,
        "check": lambda threads: first_nonfinite_row(documents.tokens, "tokens", threads=threads),
        "rotate": rotate,
        "to_bytes": lambda threads: residual.to_bytes(scaled, threads=threads),
        "encode": lambda threads: residual.encode(scaled, few, codec.centroids, 4, threads=threads),
        "nearest": lambda threads: centroids.Assigner(
            codec.centroids, codec.cells, codec.cell_offsets, threads=threads
        ).nearest(padded, cells=2, threads=threads),
        "cluster_means": lambda threads: centroids.cluster_means(padded, ids, 40, threads=threads),
        "invert": lambda threads: centroids.invert(ids, made.offsets, 40),
    }


def bits(result):
    """All numbers of a result, however nested."""
    if isinstance(result, (list, tuple)):
        return b"".join(map(bits, result))
    return b"" if result is None else np.asarray(result).tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_everything_at_once(seed):
    every = calls()
    expected = {name: bits(call(1)) for name, call in every.items()}
    wrong, start = [], threading.Barrier(8)

    def work(number):
        chance = random.Random(10 * seed + number)
        start.wait()
        for _ in range(60):
            name = chance.choice(list(every))
            if bits(every[name](chance.choice([1, 1, 2, 3, 7]))) != expected[name]:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
