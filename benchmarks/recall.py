"""Whether recall that is asked for is reached: on unseen queries, at what cost, and with queries of another kind.

    python -m benchmarks.recall EMBEDDINGS... --out benchmarks/results/recall.json
    python -m benchmarks.recall --shift EMBEDDINGS OTHERS... --out benchmarks/results/recall.json
    python -m benchmarks.recall --page docs/recall.md

Each EMBEDDINGS is a folder that ``benchmarks.embed`` made of one collection. Queries are its own, and excerpts of its
documents. 200 times, one half of a set chooses a rung of the ladder (`lateint.retrieval.limits.RUNGS`), and the other
half says whether its mean recall is what was asked for. The cost of a setting is CPU time on one thread, where all
settings are asked the same queries in turn. The cheapest fixed setting is sought among the rungs and ``FIXED``, with
all queries, so it knows what the halves do not. Then each set chooses for the other, which is none of its kind.

``--shift`` has the queries of one collection choose for queries that are unlike them: those of others, and its own cut
to ``SHORT`` tokens. What was measured before and is not measured again stays in the file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import collections_of, load, queries_of, write_json
from benchmarks.rivals.run import machine
from benchmarks.tables import between
from lateint import Index
from lateint.changing.calibrating import excerpts
from lateint.retrieval import calibrating
from lateint.retrieval.limits import fitting, limits, rungs
from lateint.retrieval.queries import Queries, read
from lateint_kernels import Ragged
from lateint_kernels.codes.engine import Limits

K, SPLITS, QUERIES, EXCERPTS, TOGETHER = 10, 200, 300, 220, 20
TARGETS = (0.9, 0.95, 0.98, 0.99)
SHORT, SHIFTED = 3, 100
FIXED = [(probes, deviations) for probes in (0.5, 0.75, 1.0) for deviations in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)]
MARKS = "<!-- recall -->", "<!-- /recall -->"


def settings_of(index: Index) -> tuple[list[Limits], list[Limits]]:
    """The rungs, and other settings: the probes and deviations of ``FIXED``, with the patience of the defaults."""
    stats = index.stats()
    size = {"centroids": stats["centroids"], "ncells": stats["cells"], "tokens": index.tokens}
    ladder = [fitting(rung, size["centroids"], len(index)) for rung in rungs(K, **size)]
    usual = limits(K, **size, documents=len(index))
    return ladder, [usual._replace(nprobe=round(p * usual.nprobe), deviations=d) for p, d in FIXED]


def measured(index: Index, queries: Queries, settings: list[Limits]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses ``[queries, settings]``, and milliseconds a query ``[settings + 1]``, the last of the exhaustive scan."""
    engine, losses, spent = index._snapshot.engine, [], np.zeros(len(settings) + 1)
    for first in range(0, len(queries), TOGETHER):
        some = queries.some(range(first, min(first + TOGETHER, len(queries))))
        start = time.process_time()
        best = engine.exhaustive(some.tokens, some.offsets, K, threads=1)
        spent[-1] += time.process_time() - start
        found = []
        for number, setting in enumerate(settings):
            start = time.process_time()
            found.append(engine.search(some.tokens, some.offsets, K, setting, threads=1))
            spent[number] += time.process_time() - start
        losses.append(calibrating.missed(best, found, K))
    return np.concatenate(losses), 1e3 * spent / len(queries)


def chosen(losses: NDArray[np.float64], ladder: list[Limits], target: float) -> int | None:
    """The number of the rung that these queries choose."""
    return calibrating.ladder(K, ladder, losses[:, : len(ladder)]).lowest(target, len(losses))


def splits(losses: NDArray[np.float64], spent: NDArray[np.float64], ladder: list[Limits], target: float) -> Any:
    """What the unseen halves say of a target; None: half of the queries are too few for it."""
    rng, half = np.random.default_rng(0), len(losses) // 2
    # The exhaustive scan is the last rung, and the last of all settings.
    everything = np.concatenate([losses, np.zeros((len(losses), 1))], axis=1)
    columns = [*range(len(ladder)), everything.shape[1] - 1]
    recalls, costs = [], []
    for _ in range(SPLITS):
        order = rng.permutation(len(losses))
        rung = chosen(losses[order[:half]], ladder, target)
        if rung is None:
            return None
        recalls.append(1 - everything[order[half:], columns[rung]].mean())
        costs.append(spent[columns[rung]])
    enough = [i for i in range(everything.shape[1]) if everything[:, i].mean() <= 1 - target]
    cheapest = min(enough, key=lambda i: spent[i])
    return {
        "met": float(np.mean(np.array(recalls) >= target)),
        "recall": float(np.mean(recalls)),
        "lowest_recall": float(np.min(recalls)),
        "cost_ms": float(np.mean(costs)),
        "cheapest_ms": float(spent[cheapest]),
        "cost_ratio": float(np.mean(costs) / spent[cheapest]),
    }


def collection(folder: Path, nbits: int) -> dict[str, Any]:
    """One collection at one width."""
    data, (name,) = load(folder), collections_of(folder)
    index = Index.build(Ragged.from_lengths(data.tokens, data.lengths), nbits=nbits, threads=1, progress=False)
    own = _queries(folder)
    picked = np.sort(np.random.default_rng(0).permutation(len(own))[:QUERIES])
    sets = {
        "queries": read([own[i] for i in picked], index.dim),
        "excerpts": excerpts(index._snapshot.state, index.codec, EXCERPTS),
    }
    ladder, fixed = settings_of(index)
    found, kept = {}, {}
    for kind, queries in sets.items():
        losses, spent = kept[kind] = measured(index, queries, ladder + fixed)
        found[kind] = {
            "queries": len(queries),
            "rungs": [
                {
                    "recall": float(1 - losses[:, i].mean()),
                    "worst": float(1 - losses[:, i].max()),
                    "ms": float(spent[i]),
                }
                for i in range(len(ladder))
            ],
            "exhaustive_ms": float(spent[-1]),
            "targets": {str(target): splits(losses, spent, ladder, target) for target in TARGETS},
        }
    shifted = {}
    for by, of in (("excerpts", "queries"), ("queries", "excerpts")):
        for target in TARGETS:
            rung = chosen(kept[by][0], ladder, target)
            if rung is not None:
                reached = 1.0 if rung == len(ladder) else float(1 - kept[of][0][:, rung].mean())
                shifted[f"{by} choose for {of}, {target}"] = reached
    return {"collection": name, "nbits": nbits, "tokens": len(data.tokens), "ladder": [r._asdict() for r in ladder],
            "sets": found, "shifted": shifted}  # fmt: skip


def shifted(folder: Path, others: list[Path], nbits: int) -> dict[str, Any]:
    """What queries unlike those that chose find, by target."""
    data, (name,) = load(folder), collections_of(folder)
    index = Index.build(Ragged.from_lengths(data.tokens, data.lengths), nbits=nbits, threads=1, progress=False)
    ladder, _ = settings_of(index)
    own = _queries(folder)
    asked = {"its own": own, f"its own, {SHORT} tokens": [np.ascontiguousarray(query[:SHORT]) for query in own]}
    asked |= {f"those of {collections_of(other)[0]}": _queries(other)[:SHIFTED] for other in others}
    losses = {kind: measured(index, read(queries, index.dim), ladder)[0] for kind, queries in asked.items()}
    rungs_of = {target: chosen(losses["its own"], ladder, target) for target in TARGETS}
    reached = {
        kind: {str(target): float(1 - lost[:, rung].mean()) for target, rung in rungs_of.items() if rung is not None}
        for kind, lost in losses.items()
    }
    return {"collection": name, "nbits": nbits, "queries": len(own), "reached": reached}


def _queries(folder: Path) -> list[NDArray[np.float32]]:
    (name,) = collections_of(folder)
    return [np.ascontiguousarray(query, np.float32) for query in queries_of(folder, name).values()]


def page(report: dict[str, Any]) -> str:
    """The tables in docs/recall.md."""
    lines = [
        "| collection, bits | asked | half | " + " | ".join(f"{target}" for target in TARGETS) + " |",
        "| --- | --- | --- |" + " --- |" * len(TARGETS),
    ]
    for row in report["collections"]:
        for kind, found in row["sets"].items():
            cells = []
            for target in TARGETS:
                one = found["targets"][str(target)]
                few = "too few"
                cells.append(few if one is None else f"{one['recall']:.3f}, {one['met']:.0%}, {one['cost_ratio']:.2f}x")
            first = [f"{row['collection']}, {row['nbits']}", kind, str(found["queries"] // 2)]
            lines.append("| " + " | ".join([*first, *cells]) + " |")
    if (one := report.get("shifted")) is None:
        return "\n".join(lines)
    lines += ["", f"| asked of {one['collection']} | " + " | ".join(map(str, TARGETS)) + " |"]
    lines += ["| --- |" + " --- |" * len(TARGETS)]
    for kind, reached in one["reached"].items():
        lines.append(f"| {kind} | " + " | ".join(f"{reached[str(target)]:.3f}" for target in TARGETS) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--shift", type=Path, nargs="+", default=[])
    parser.add_argument("--nbits", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recall.json"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    report = json.loads(options.out.read_text()) if options.out.exists() else {}
    rows = report.get("collections", [])
    if options.folders or options.shift:
        report |= {"machine": machine([0]), "k": K, "splits": SPLITS, "collections": rows}
    if options.shift:
        report["shifted"] = shifted(options.shift[0], options.shift[1:], options.nbits[-1])
        write_json(options.out, report)
    for folder in options.folders:
        for nbits in options.nbits:
            row = collection(folder, nbits)
            same = [i for i, old in enumerate(rows) if (old["collection"], old["nbits"]) == (row["collection"], nbits)]
            first = same[0] if same else len(rows)
            rows[first : first + 1] = [row]
            write_json(options.out, report)
    if options.page:
        between(options.page, MARKS, page(json.loads(options.out.read_text())))


if __name__ == "__main__":
    main()
