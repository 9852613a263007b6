"""Checks the claims that the design rests on, on real embeddings, and writes the tables of ``docs/design.md``.

    python -m benchmarks.design --data EMBEDDINGS --out benchmarks/results/design.json
    python -m benchmarks.design --render       write the tables again from the JSON
    python -m benchmarks.design --check        fail if they are not what the JSON says

Everything runs on a sample: whole documents, evenly spaced over the folder (see ``benchmarks.embeddings``), and queries
evenly spaced over each collection. The exact ranking is MaxSim in float32 over the float16 tokens. Each experiment is a
function of its own that returns plain rows; rivals' methods (ColBERT's codec, PLAID's centroid interaction, pruning by
alpha) are written in numpy here, for quality only: no time is measured of them. Tables in the page stand between
``<!-- measured: NAME -->`` and ``<!-- /measured -->``, and so does every sentence with a figure in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.design.coarse import cells, coarse, imputation
from benchmarks.design.codes import codec, codec_parts, norms, query_bytes
from benchmarks.design.levels import assignment, centroid_counts, crossover, training
from benchmarks.design.page import TABLES
from benchmarks.design.sample import Row, code, engine_of, exhaustive, learned_rotation, take_sample
from benchmarks.design.stopping import stopping
from benchmarks.design.tiers import tiers
from benchmarks.embeddings import collections_of, read_json, write_json
from benchmarks.rivals.run import machine
from benchmarks.tables import with_tables

ROOT = Path(__file__).resolve().parents[2]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "design.json", ROOT / "docs" / "design.md"
TOKENS, QUERIES = 1_250_000, 150


def measure(folder: Path, tokens: int, queries: int, only: list[str]) -> Row:
    """Runs every experiment, or some."""
    begun = time.perf_counter()
    result: Row = {"machine": machine(sorted(os.sched_getaffinity(0)))}

    def step(name: str, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        print(f"{name} ...", end=" ", flush=True)
        done = run()
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
        return done

    sample = step("exact ranking", lambda: take_sample(folder, tokens, queries))
    coded = step("index", lambda: code(sample, learned_rotation(sample.tokens)))
    engine = engine_of(coded, 4)
    truth = exhaustive(engine, sample.queries, 10)
    result["data"] = {
        "collections": collections_of(folder),
        "documents": len(sample.offsets) - 1,
        "tokens": len(sample.tokens),
        "dim": sample.tokens.shape[1],
        "queries": len(sample.queries),
        "query_tokens": len(sample.query_tokens) / len(sample.queries),
        "centroids": len(coded.centroids),
        "cells": len(coded.centroids.cells),
        "residual_norm": coded.residual_norm,
    }
    experiments: dict[str, Callable[[], list[Row]]] = {
        "coarse": lambda: coarse(sample, coded, engine, truth),
        "imputation": lambda: imputation(sample, coded, engine, truth),
        "cells": lambda: cells(sample, engine, truth),
        "stopping": lambda: [row for k in (10, 100) for row in stopping(sample, coded, engine, k)],
        "crossover": lambda: crossover(sample, coded),
        "centroid_counts": lambda: centroid_counts(sample, coded),
        "training": lambda: training(sample, coded),
        "assignment": lambda: assignment(coded),
        "query_bytes": lambda: query_bytes(sample, coded),
        "tiers": lambda: tiers(sample, coded),
        "codec_parts": lambda: codec_parts(sample, coded),
        "norms": lambda: norms(sample),
        "codec": lambda: codec(sample, coded),
    }
    if unknown := set(only) - set(experiments):
        sys.exit(f"--only must be some of {', '.join(experiments)}, got {', '.join(sorted(unknown))}")
    for name in only or experiments:
        result[name] = step(name, experiments[name])
    result["seconds"] = time.perf_counter() - begun
    return result


def with_some(report: Row, found: Row, names: list[str]) -> Row:
    """The report with some experiments of another run, and what that one ran on."""
    ran = {"machine": found["machine"], "centroids": found["data"]["centroids"]}
    apart = {**report.get("apart", {}), **dict.fromkeys(names, ran)}
    return {**report, **{name: found[name] for name in names}, "apart": apart}


def main() -> None:
    """Measures, renders, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder made by benchmarks.embed")
    parser.add_argument("--out", type=Path, default=RESULT, help="the JSON to write (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of the sample (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=QUERIES, help="of the sample (default: %(default)s)")
    parser.add_argument("--only", help="experiments of the JSON to measure again, with commas; the others stay")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page's tables from the JSON")
    parser.add_argument("--check", action="store_true", help="measure and write nothing, fail if the page is stale")
    args = parser.parse_args()
    if not (args.render or args.check):
        if args.data is None:
            parser.error("--data is needed to measure")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        only = args.only.split(",") if args.only else []
        found = measure(args.data, args.tokens, args.queries, only)
        write_json(args.out, with_some(read_json(args.out), found, only) if only else found)
        if args.out.resolve() != RESULT:
            return  # a trial
    page = PAGE.read_text()
    rendered = with_tables(page, {**read_json(RESULT), "divided": read_json(RESULT.with_name("divided.json"))}, TABLES)
    if args.check and rendered != page:
        sys.exit(f"{PAGE.name} is not what {RESULT.name} says; run python -m benchmarks.design --render")
    if not args.check:
        PAGE.write_text(rendered)


if __name__ == "__main__":
    main()
