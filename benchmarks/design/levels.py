"""Centroids on two levels: how many, how they are trained, and what assignment misses."""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import numpy as np

from benchmarks.design.coarse import DEPTHS, recalls
from benchmarks.design.sample import (
    Coded,
    Row,
    Sample,
    code,
    engine_of,
    exhaustive,
    gather_only,
    latency,
    overlap,
    trained,
)
from lateint.indexing import builder, clustering
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.codes.engine import Limits


def crossover(sample: Sample, coded: Coded) -> list[Row]:
    """From how many centroids on cells pay: time to probe, and the share of the 16 best that cells find."""
    rows = []
    long = np.split(sample.query_tokens, range(32, len(sample.query_tokens), 32))[:-1]
    for count in (1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 17):
        if count > len(coded.rows) // 8:
            break
        centroids, _ = trained(coded.rows, count, iterations=1, per_centroid=8)
        ids = clustering.assigner(centroids, HostOperators())(coded.rows)
        documents = gather_only(dataclasses.replace(coded, centroids=centroids, ids=ids))
        # Every centroid is a document of its own, so what is gathered is what was probed.
        each = np.arange(count, dtype=np.uint32)
        engine = gather_only(
            dataclasses.replace(coded, centroids=centroids, ids=each, offsets=np.arange(count + 1, dtype=np.int64))
        )
        flat: list[np.ndarray] = []
        for cells_probed in (0, 4, 8, 16):
            look = partial(engine.gather, limits=Limits(16, count, cells=cells_probed))
            found = [look(query).positions for query in sample.queries]
            flat = flat or found
            share = np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, flat, strict=True)])
            row = {"centroids": count, "cells": cells_probed, "found": float(share), **latency(look, sample.queries)}
            row["p50_ms_of_32_tokens"] = latency(look, long)["p50_ms"]
            gathered = [documents.gather(q, Limits(16, max(DEPTHS), cells=cells_probed)) for q in sample.queries]
            rows.append({**row, **recalls([g.positions for g in gathered], sample.truth)})
    return rows


def centroid_counts(sample: Sample, base: Coded) -> list[Row]:
    """K: residual norm, overlap with exact of 2 and 4 bits, and the coarse stage at several nprobe."""
    rows = []
    for per in (480, 240, 120):
        coded = code(sample, base.rotation, len(sample.tokens) // per, base)
        engines = {nbits: engine_of(coded, nbits) for nbits in (2, 4)}
        list_bytes = (4 * len(coded.lists[1]) + coded.centroids.rows.nbytes) / len(coded.ids)
        same = {
            f"overlap_{n}_bits": overlap(exhaustive(e, sample.queries, 10), sample.truth) for n, e in engines.items()
        }
        for nprobe in (8, 16, 32):
            found = [engines[4].gather(q, Limits(nprobe, max(DEPTHS))) for q in sample.queries]
            timed = latency(partial(engines[4].gather, limits=Limits(nprobe, max(DEPTHS))), sample.queries)
            rows.append(
                {
                    "tokens_per_centroid": per,
                    "centroids": len(coded.centroids),
                    "residual_norm": coded.residual_norm,
                    "train_seconds": coded.train_seconds,
                    "bytes_per_token": list_bytes,
                    **same,
                    "nprobe": nprobe,
                    "postings": float(np.mean([f.postings for f in found])),
                    **recalls([f.positions for f in found], sample.truth),
                    **timed,
                }
            )
    return rows


def training(sample: Sample, base: Coded) -> list[Row]:
    """k-means through cells, its iterations and its sample: one changed at a time."""
    default = {
        "cells": clustering.CELLS_SEARCHED,
        "iterations": builder.ITERATIONS,
        "per_centroid": builder.SAMPLE_PER_CENTROID,
    }
    changes: list[Row] = [{}, *({"cells": n} for n in (1, 2, 6, 0)), *({"iterations": n} for n in (2, 4, 8))]
    changes += [{"per_centroid": n} for n in (16, 64)]
    rows = []
    for change in changes:
        setting = {**default, **change}
        coded = code(sample, base.rotation, len(base.centroids), base, **setting)
        engine = gather_only(coded)
        found = [engine.gather(q, Limits(16, max(DEPTHS))).positions for q in sample.queries]
        rows.append(
            {
                **setting,
                "default": not change,
                "seconds": coded.train_seconds,
                "residual_norm": coded.residual_norm,
                **recalls(found, sample.truth),
            }
        )
    return rows


def assignment(coded: Coded) -> list[Row]:
    """How often a look into the nearest cells finds the nearest of all centroids."""
    rows: list[Row] = []
    exact = clustering.assigner(coded.centroids, HostOperators(), 0)(coded.rows)
    for count in (1, 2, 3, 6, 0):
        nearest = clustering.assigner(coded.centroids, HostOperators(), count)
        start = time.perf_counter()
        ids = nearest(coded.rows)
        seconds = time.perf_counter() - start
        norm = dataclasses.replace(coded, ids=ids).residual_norm
        rows.append({"cells": count, "same": float(np.mean(ids == exact)), "residual_norm": norm, "seconds": seconds})
    return rows
