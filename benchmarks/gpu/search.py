"""Builds an index of generated tokens on a device, searches it, and writes one JSON.

    python -m benchmarks.gpu.search --tokens 1000000000 --out benchmarks/results/h200-search.json

Tokens are made on the device, chunk by chunk, and never kept: those of a document are centres of its few topics, with
noise. ``--embeddings`` names an .npy of real token embeddings ``[n, dim]`` to take centres from; otherwise they are
random. Query tokens are tokens of one document with more noise. What is timed is `DeviceEngine.search` as a program
calls it, from float32 queries on the host to rankings on the host.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.systems import versions
from lateint.indexing.builder import ITERATIONS, PILOT, SAMPLE_PER_CENTROID, default_centroids
from lateint.indexing.clustering import Centroids, assigner, train
from lateint.indexing.codec import Rotation, train_rotation
from lateint.retrieval.limits import CELLS_PROBED
from lateint_kernels.codes.device.building import DeviceOperators
from lateint_kernels.codes.device.engine import DeviceEngine
from lateint_kernels.codes.engine import Engine, Limits
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.codes.index_tensors import IndexTensors
from lateint_kernels.codes.torch.build import invert

SHORTEST, LONGEST = 64, 192  # tokens of a document
TOPICS, SPREAD = 8, 64  # of a document, and centres of a topic, which are neighbours
NOISE, QUERY_NOISE = 0.5, 0.3  # of a length of 1
CHUNK = {"cuda": 1 << 13, "cpu": 1 << 5}  # documents


@dataclass(frozen=True)
class Case:
    """One row of the table: queries of a length, so many at a time."""

    Lq: int
    batch: int
    candidates: int
    exhaustive: bool = False
    flat: bool = False  # look at all centroids


CASES = {
    "single": Case(32, 1, 4096),
    "batch": Case(32, 64, 4096),
    "long": Case(320, 1, 1024),
    "long-batch": Case(320, 64, 1024),
    "single-flat": Case(32, 1, 4096, flat=True),
    "batch-flat": Case(32, 64, 4096, flat=True),
    "long-batch-flat": Case(320, 64, 1024, flat=True),
    "exhaustive": Case(32, 1, 0, exhaustive=True),
}
SMOKE = {
    "single": Case(3, 1, 40),
    "batch": Case(3, 2, 40),
    "batch-flat": Case(3, 2, 40, flat=True),
    "exhaustive": Case(3, 1, 0, exhaustive=True),
}


class Tokens:
    """All tokens, made again the same way whenever they are asked for."""

    def __init__(self, total: int, centres: Tensor, seed: int) -> None:
        self.centres, self.seed, self.device = centres, seed, centres.device
        count = max(1, total // ((SHORTEST + LONGEST) // 2))
        self.lengths = np.random.default_rng(seed).integers(SHORTEST, LONGEST + 1, count)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self.step = CHUNK[self.device.type]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def chunks(self) -> Iterator[Tensor]:
        """``[n, dim]`` float32, documents after documents."""
        for number in range(-(-len(self.lengths) // self.step)):
            yield self.chunk(number)

    def chunk(self, number: int) -> Tensor:
        """The tokens of documents ``number * step : (number + 1) * step``."""
        generator = torch.Generator(self.device).manual_seed(self.seed + 1 + number)
        lengths = torch.from_numpy(self.lengths[number * self.step : (number + 1) * self.step]).to(self.device)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=self.device), lengths)

        def random(most: int, *shape: int) -> Tensor:
            return torch.randint(most, shape, generator=generator, device=self.device)

        topics = random(len(self.centres), len(lengths), TOPICS)
        topic = topics[owner, random(TOPICS, len(owner))]
        centre = self.centres[(topic + random(SPREAD, len(owner))) % len(self.centres)]
        return self.noisy(centre, NOISE, generator)

    def queries(self, Lq: int, count: int, seed: int) -> np.ndarray:
        """``[count * Lq, dim]`` float32 on the host."""
        rng, generator = np.random.default_rng(seed), torch.Generator(self.device).manual_seed(seed)
        parts = []
        for document in rng.integers(0, len(self.lengths), count):
            number, first = document // self.step, self.offsets[document // self.step * self.step]
            rows = rng.integers(self.offsets[document], self.offsets[document + 1], Lq) - first
            parts.append(self.chunk(int(number))[torch.from_numpy(rows).to(self.device)])
        found: np.ndarray = self.noisy(torch.cat(parts), QUERY_NOISE, generator).cpu().numpy()
        return found

    def noisy(self, rows: Tensor, noise: float, generator: torch.Generator) -> Tensor:
        """Of unit length."""
        added = torch.randn(rows.shape, generator=generator, device=self.device) * (noise / rows.shape[1] ** 0.5)
        return torch.nn.functional.normalize(rows + added, dim=1)


def main(arguments: list[str] | None = None) -> None:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--nbits", type=int, default=4, choices=(1, 2, 4, 8))
    parser.add_argument("--nprobe", type=int, default=16)
    parser.add_argument("--cells", type=int, help="of a query token (default: as a search has it)")
    parser.add_argument("--repeats", type=int, default=20, help="calls of each case, each with other queries")
    parser.add_argument("--embeddings", type=Path, help="an .npy of real token embeddings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="tiny queries, to see that everything runs")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = Tokens(options.tokens, centres(options, device), options.seed)
    seconds: dict[str, float] = {}
    codec, index = built(tokens, options.nbits, options.seed, seconds)
    engine = DeviceEngine(codec, index, device)
    if options.cells is None:
        options.cells = CELLS_PROBED
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "versions": versions(),
        "tokens": len(tokens),
        "documents": index.documents,
        "dim": options.dim,
        "nbits": options.nbits,
        "nprobe": options.nprobe,
        "cells": options.cells,
        "centroids": len(index.centroids),
        "embeddings": options.embeddings.name if options.embeddings else None,
        "index_bytes": index.bytes,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        "build_seconds": seconds,
        "cases": {},
    }
    if len(tokens) <= 1 << 20:
        report["as_on_the_cpu"] = as_on_the_cpu(engine, codec, index, tokens, options.nprobe)
    for name, case in (SMOKE if options.smoke else CASES).items():
        report["cases"][name] = measure(engine, case, tokens, options)
        options.out.write_text(json.dumps(report, indent=1) + "\n")  # what there is, should the rest be cut short
        print(name, json.dumps(report["cases"][name]), flush=True)


def centres(options: argparse.Namespace, device: str) -> Tensor:
    """What tokens are noisy copies of."""
    if options.embeddings is not None:
        rows = torch.from_numpy(np.array(np.load(options.embeddings, mmap_mode="r")[: 1 << 22], np.float32))
    else:
        count = max(SPREAD, min(1 << 22, options.tokens // 100))
        rows = torch.randn(count, options.dim, generator=torch.Generator().manual_seed(options.seed))
    return torch.nn.functional.normalize(rows.to(device), dim=1)


def built(tokens: Tokens, nbits: int, seed: int, seconds: dict[str, float]) -> tuple[CodecArrays, IndexTensors]:
    """An index on the device, and how long each part of the build took; tokens are made within that time."""
    clock = Clock(tokens.device, seconds)
    pilot = tokens.chunk(0)[:PILOT].cpu().numpy()
    rotation = train_rotation(pilot, seed=seed, threads=0)
    clock.lap("codec")
    operators = DeviceOperators(tokens.device.type)
    rotate = operators.rotation(rotation.mean, rotation.blocks, rotation.permutation, rotation.step)
    count = default_centroids(len(tokens))
    sample = operators.empty(min(len(tokens), count * SAMPLE_PER_CENTROID), rotation.width)
    taken = 0
    for chunk in tokens.chunks():  # documents are in no order: the first ones are as good as any
        rows = operators.to_bytes(rotate(chunk[: len(sample) - taken]))
        sample[taken : taken + len(rows)] = rows
        taken += len(rows)
        if taken == len(sample):
            break
    clock.lap("sample")
    settings: dict[str, Any] = {"iterations": ITERATIONS, "seed": seed}
    centroids = train(sample, count, operators=operators, **settings)
    nearest = assigner(centroids, operators)
    del rows, sample
    clock.lap("centroids")

    T, whole, device = len(tokens), nbits == 8, tokens.device
    codes = torch.empty((T, rotation.width * nbits // 8), dtype=torch.uint8, device=device)
    scales = torch.empty(T, dtype=torch.uint8, device=device)
    ids = torch.empty(T, dtype=torch.int32, device=device)
    first = 0
    for chunk in tokens.chunks():
        last = first + len(chunk)
        clock.lap("tokens")
        scaled = rotate(chunk)
        clock.lap("rotate")
        ids[first:last] = nearest(operators.to_bytes(scaled))
        clock.lap("assign")
        codes[first:last], scales[first:last] = operators.encode(scaled, ids[first:last], centroids.rows, nbits)
        clock.lap("encode")
        first = last
    offsets = torch.from_numpy(tokens.offsets).to(device)
    list_offsets, list_documents = invert(ids, offsets, len(centroids.rows))
    clock.lap("lists")
    high = None if whole or len(centroids.rows) <= 1 << 16 else (ids >> 16).to(torch.uint8)
    index = IndexTensors(
        nbits=nbits,
        width=rotation.width,
        centroids=centroids.rows,
        cells=centroids.cells,
        cell_offsets=torch.from_numpy(centroids.cell_offsets).to(device),
        largest_cell=int(np.diff(centroids.cell_offsets).max()),
        offsets=offsets,
        codes=codes,
        scales=None if whole else scales,
        centroid_low=None if whole else ((ids & 0xFFFF) ^ 0x8000).sub_(0x8000).to(torch.int16),
        centroid_high=high,
        list_offsets=torch.cat([list_offsets, list_offsets[-1:]])[None],
        list_documents=list_documents,
        cuts=tokens.offsets,
    )
    return codec_arrays(rotation, centroids.on_host(operators), nbits), index


def codec_arrays(rotation: Rotation, centroids: Centroids, nbits: int) -> CodecArrays:
    """What an engine takes."""
    stored = (centroids.rows, centroids.cells, centroids.cell_offsets)
    return CodecArrays(rotation.mean, rotation.blocks, rotation.permutation, *stored, step=rotation.step, nbits=nbits)


class Clock:
    """Adds the time since the last lap to a part."""

    def __init__(self, device: torch.device, seconds: dict[str, float]) -> None:
        self.wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.seconds, self.start = seconds, time.perf_counter()

    def lap(self, part: str) -> None:
        """Ends a part."""
        self.wait()
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.start
        self.start = now


def measure(engine: DeviceEngine, case: Case, tokens: Tokens, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a call, and the share of the ten best of an exhaustive scan that was found."""
    times, recalls = [], []
    offsets = np.arange(case.batch + 1, dtype=np.int64) * case.Lq
    for repeat in range(options.repeats + 2):
        queries = tokens.queries(case.Lq, case.batch, seed=1000 + repeat)
        start = time.perf_counter()
        if case.exhaustive:
            rankings = engine.exhaustive(queries, offsets, 10)
        else:
            cells = 0 if case.flat else options.cells
            limits = Limits(options.nprobe, case.candidates, cells=cells)
            rankings = engine.search(queries, offsets, 10, limits)
        times.append(1e3 * (time.perf_counter() - start))
        if repeat < 2 and not case.exhaustive:  # these two also compile what has to be compiled
            some = min(8, case.batch)
            best = engine.exhaustive(queries[: offsets[some]], offsets[: some + 1], 10)
            pairs = zip(rankings[:some], best, strict=True)
            recalls += [len({*a.tolist()} & {*b.tolist()}) / len(b) for (a, _), (b, _) in pairs]
    times = times[2:]
    found = {"Lq": case.Lq, "batch": case.batch, "candidates": case.candidates, "ms_p50": statistics.median(times)}
    found |= {"ms_min": min(times), "ms_max": max(times)}
    return found if case.exhaustive else found | {"recall_10": statistics.mean(recalls), "recall_of": len(recalls)}


def as_on_the_cpu(engine: DeviceEngine, codec: CodecArrays, index: IndexTensors, tokens: Tokens, nprobe: int) -> bool:
    """Whether the engine of the CPU finds the same in the same index, bit for bit."""

    def array(tensor: Tensor | None, dtype: Any) -> Any:
        return None if tensor is None else tensor.cpu().numpy().view(dtype)

    low = index.centroid_low if index.centroid_low is not None else torch.zeros(len(index.codes), dtype=torch.int16)
    segment = SegmentArrays(
        tokens.offsets,
        array(index.codes, np.uint8),
        array(index.scales, np.uint8),
        array(low, np.uint16),
        array(index.centroid_high, np.uint8),
        array(index.list_offsets[0, :-1], np.int64),
        array(index.list_documents, np.uint32),
    )
    queries, offsets = tokens.queries(32, 3, seed=5), np.arange(4, dtype=np.int64) * 32
    searches = [Limits(nprobe, 500, patience=96, cells=cells) for cells in (0, 3)]
    found, expected = (
        [
            one.exhaustive(queries, offsets, 10),
            *(one.search(queries, offsets, 10, limits) for limits in searches),
        ]
        for one in (engine, Engine(codec, [segment]))
    )
    return all(
        a.tolist() == b.tolist() and x.tobytes() == y.tobytes()
        for left, right in zip(found, expected, strict=True)
        for (a, x), (b, y) in zip(left, right, strict=True)
    )


if __name__ == "__main__":
    main()
