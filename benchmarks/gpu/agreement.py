"""Asks a device and the CPU the same of real documents, and counts where their bits differ: nowhere, it is hoped.

    python -m benchmarks.gpu.agreement --data EMBEDDINGS --device cuda --out benchmarks/results/h200-agreement.json

``--device torch:cpu`` compares the device's engine where there is no GPU, in torch. An index is built from evenly
spaced documents of the folder (`benchmarks.embed` makes it) on both, and the files are compared byte for byte. Then
evenly spaced queries of all collections are asked in several ways.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import lateint
from benchmarks.embeddings import collections_of, load, queries_of, write_json
from benchmarks.gpu.systems import versions
from benchmarks.rivals.run import machine

FEW = 32  # queries, of what takes long


def main(arguments: list[str] | None = None) -> None:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder made by benchmarks.embed")
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--device", default="cuda", help="cuda, or torch:cpu (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=1_250_000, help="of the documents (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=200, help="evenly spaced (default: %(default)s)")
    parser.add_argument("--nbits", type=int, default=2, choices=(1, 2, 4, 8))
    options = parser.parse_args(arguments)
    documents, names = sample(options.data, options.tokens)
    queries = [tokens for name in collections_of(options.data) for tokens in queries_of(options.data, name).values()]
    queries = queries[:: max(1, len(queries) // options.queries)]
    where = machine(sorted(os.sched_getaffinity(0)))
    report: dict[str, Any] = {"machine": where, "device": options.device, "versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        built = [Path(folder) / name for name in ("cpu", "device")]
        for path, device in zip(built, ("cpu", options.device), strict=True):
            settings: dict[str, Any] = {"ids": names, "nbits": options.nbits, "progress": False}
            lateint.Index.build(documents, path, device=device, **settings)
        theirs, ours = (lateint.Index.open(built[0], device=device) for device in ("cpu", options.device))
        report |= {"documents": len(theirs), "tokens": sum(map(len, documents)), "queries": len(queries)}
        report |= {"centroids": theirs.stats()["centroids"], "nbits": options.nbits}
        report["files_that_differ"] = [name for name, same in compared_files(*built) if not same]
        half = (options.device, {"device_memory": theirs.stats()["bytes"] // 2})
        several: tuple[Any, dict[str, int]] = ([options.device] * 2, {})
        places = {"half of it there": half, "two devices": several}
        others = {name: lateint.Index.open(built[0], device=device, **more) for name, (device, more) in places.items()}
        report["cases"] = dict(cases(theirs, ours, others, queries))
    write_json(options.out, report)
    for name, case in report["cases"].items():
        print(f"{name}: {case['same']} of {case['queries']} queries with the same ids and the same scores, bit for bit")


def sample(folder: Path, tokens: int) -> tuple[list[np.ndarray], list[str]]:
    """Whole documents, evenly spaced, of about so many tokens together, and their ids."""
    data = load(folder)
    step = max(1, round(int(data.lengths.sum()) / tokens))
    rows = range(0, len(data.lengths), step)
    return [np.array(data.tokens[data.offsets[i] : data.offsets[i + 1]]) for i in rows], [data.ids[i] for i in rows]


def compared_files(left: Path, right: Path) -> Iterator[tuple[str, bool]]:
    """Files of both folders by name, and whether they are the same."""
    names = {str(path.relative_to(side)) for side in (left, right) for path in side.rglob("*") if path.is_file()}
    for name in sorted(names):
        files = [side / name for side in (left, right)]
        yield name, all(file.exists() for file in files) and files[0].read_bytes() == files[1].read_bytes()


def cases(
    theirs: lateint.Index, ours: lateint.Index, others: dict[str, lateint.Index], queries: list[np.ndarray]
) -> Iterator[tuple[str, dict[str, int]]]:
    """What is asked, of how many queries, and how many got the same."""
    few = queries[:: max(1, len(queries) // FEW)]
    third = theirs.ids[::3].tolist()
    settings: dict[str, dict[str, Any]] = {
        "default": {"k": 10},
        "k = 100": {"k": 100},
        "nprobe = 4, 100 candidates": {"k": 10, "nprobe": 4, "candidates": 100},
        "4 cells": {"k": 10, "cells": 4},
        "a third of the documents": {"k": 10, "subset": third},
    }
    for name, wanted in settings.items():
        yield name, agreement(theirs, ours, queries, wanted)
    yield "exhaustive", agreement(theirs, ours, few, {"k": 10, "exhaustive": True})
    for name, other in others.items():
        yield name, agreement(theirs, other, few, {"k": 10})
    ranked = [[index.rerank(query, third[:200]) for query in few] for index in (theirs, ours)]
    yield "rerank", same_of(*ranked)


def agreement(
    theirs: lateint.Index, ours: lateint.Index, queries: list[np.ndarray], wanted: dict[str, Any]
) -> dict[str, int]:
    """Of queries asked as one batch."""
    return same_of(theirs.search(queries, **wanted), ours.search(queries, **wanted))


def same_of(left: list[lateint.Hits], right: list[lateint.Hits]) -> dict[str, int]:
    """How many have the same ids and the same bits of scores."""
    same = sum(
        np.array_equal(a.ids, b.ids) and np.asarray(a.scores).tobytes() == np.asarray(b.scores).tobytes()
        for a, b in zip(left, right, strict=True)
    )
    return {"queries": len(left), "same": same}


if __name__ == "__main__":
    main()
