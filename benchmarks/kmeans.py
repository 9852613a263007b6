"""What k-means costs and how good its centroids are, where its first iterations see parts of the sample.

    python -m benchmarks.kmeans --data EMBEDDINGS --out benchmarks/results/kmeans.json
    python -m benchmarks.kmeans --page docs/design.md

EMBEDDINGS is a folder that ``benchmarks.embed`` made of several collections; each is built with every setting, in turn,
``TURNS`` times, on two threads. The error is the mean distance of ``TOKENS`` tokens, whether in the sample or not, from
their centroids, in units of the embeddings. Overlap is that of an exhaustive search with the exact top 10.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import Embeddings, collections_of, load, queries_of, write_json
from benchmarks.rivals.run import machine
from benchmarks.tables import machine_text, options, table
from benchmarks.threads import of_collection
from lateint import Index
from lateint.indexing import builder, clustering
from lateint.indexing.encoding import Encoder
from lateint.timings import Timings
from lateint_kernels.codes.building import HostOperators

RESULT = Path(__file__).resolve().parent / "results" / "kmeans.json"
MARKS = "<!-- kmeans -->", "<!-- /kmeans -->"
TURNS, QUERIES, TOKENS, CHUNK = 3, 100, 200_000, 1 << 14


@dataclass(frozen=True)
class Setting:
    """Of so many tokens of the sample each iteration sees one, and the sample's tokens for a centroid."""

    parts: tuple[int, ...]
    per_centroid: int

    @property
    def passes(self) -> float:
        """Tokens that are assigned, for each centroid."""
        return self.per_centroid * sum(1 / part for part in self.parts)


SETTINGS = (
    Setting((1, 1, 1, 1), 24),
    Setting((4, 4, 2, 1), 24),
    Setting((1, 1), 24),
    Setting((6, 6, 3, 1), 24),
    Setting((6, 6, 3, 1), 32),
)


def built(data: Embeddings, setting: Setting, nbits: int) -> Index:
    """An index whose centroids were learned so."""
    clustering.PARTS, builder.ITERATIONS = setting.parts, len(setting.parts)
    builder.SAMPLE_PER_CENTROID = setting.per_centroid
    return Index.build(data.tokens, lengths=data.lengths, nbits=nbits, threads=2, progress=False)


def error(index: Index, tokens: NDArray[Any]) -> float:
    """Mean distance of tokens from their centroids."""
    operators = HostOperators(2)
    encoder = Encoder(index.codec, operators, Timings())
    nearest = clustering.assigner(encoder.centroids, operators)
    step, width, distances = index.codec.rotation.step, index.codec.rotation.width, []
    for first in range(0, len(tokens), CHUNK):
        scaled = encoder.rotate(np.asarray(tokens[first : first + CHUNK], np.float32))
        ids = nearest(operators.to_bytes(scaled))
        apart = scaled - (np.asarray(encoder.centroids.rows)[ids][:, :width].astype(np.float32) - 128)
        distances.append(np.linalg.norm(apart, axis=1))
    return float(step * np.concatenate(distances).mean())


def exact(data: Embeddings, queries: list[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
    """The best ten documents of each query, in float32."""
    tokens, found = np.asarray(data.tokens, np.float32), []
    for query in queries:
        scores = np.maximum.reduceat(query @ tokens.T, data.offsets[:-1], axis=1).sum(0)
        found.append(np.argsort(-scores, kind="stable")[:10])
    return found


def overlap(index: Index, queries: list[NDArray[np.float32]], truth: list[NDArray[np.int64]]) -> float:
    """With the exact top 10."""
    hits = index.search(queries, k=10, exhaustive=True)
    return float(np.mean([len(np.intersect1d(one.ids, best)) / 10 for one, best in zip(hits, truth, strict=True)]))


def measure(folder: Path) -> list[dict[str, Any]]:
    """Rows of all collections and settings."""
    data, rows = load(folder), []
    for name in collections_of(folder):
        mine = of_collection(data, name)
        queries = [np.ascontiguousarray(query, np.float32) for query in queries_of(folder, name).values()][:QUERIES]
        truth = exact(mine, queries)
        some = np.sort(np.random.default_rng(0).choice(len(mine.tokens), min(TOKENS, len(mine.tokens)), replace=False))
        seconds: dict[Setting, list[float]] = {setting: [] for setting in SETTINGS}
        found: dict[Setting, dict[int, Index]] = {setting: {} for setting in SETTINGS}
        for turn in range(TURNS):
            for setting in SETTINGS:
                index = built(mine, setting, (2, 4)[turn % 2])
                found[setting][index.codec.nbits] = index
                seconds[setting].append(index.stats()["build_seconds"]["centroids"])
        for setting in SETTINGS:
            row = {
                "collection": name,
                "parts": list(setting.parts),
                "per_centroid": setting.per_centroid,
                "assigned_per_centroid": setting.passes,
                "centroids": len(found[setting][2].codec.centroids),
                "seconds": min(seconds[setting]),
                "error": error(found[setting][2], mine.tokens[some]),
                **{f"overlap_{n}_bits": overlap(index, queries, truth) for n, index in found[setting].items()},
            }
            print(row, flush=True)
            rows.append(row)
    return rows


def page(results: dict[str, Any]) -> str:
    """The table."""
    rows = [
        (row["collection"], ", ".join(f"1/{part}" if part > 1 else "all" for part in row["parts"]),
         str(row["per_centroid"]), f"{row['seconds']:.2f} s", f"{row['error']:.4f}",
         f"{row['overlap_2_bits']:.3f}", f"{row['overlap_4_bits']:.3f}")
        for row in results["rows"]
    ]  # fmt: skip
    head = ("collection", "iterations see", "sample per centroid", "k-means", "error", "overlap, 2 bits", "4 bits")
    return f"{machine_text(results['machine'])}\n\n{table(head, rows)}"


def main() -> None:
    """Measures, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = options(parser, RESULT, MARKS, page)
    if args is None:
        return
    here = machine(sorted(os.sched_getaffinity(0)))
    write_json(args.out, {"machine": here, "rows": measure(args.data)})


if __name__ == "__main__":
    main()
