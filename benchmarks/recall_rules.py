"""What other rules of choosing settings for a recall would give, and how many queries they want.

    python -m benchmarks.recall_rules EMBEDDINGS... --out benchmarks/results/recall-rules.json
    python -m benchmarks.recall_rules --page docs/recall.md

Each EMBEDDINGS is a folder that ``benchmarks.embed`` made of one collection. All of its queries are taken for all that
there are. ``DRAWS`` times, n of them are drawn with replacement and choose a setting, by each rule. ``met`` is the
share of draws whose setting reaches the target over all queries; ``cost_ratio`` is CPU time over that of the cheapest
setting that does, with one thread. What was measured before of other collections stays in the file. Rules are

- conformal: that of `Ladder.lowest`, with the rungs of `lateint.retrieval.limits.RUNGS`;
- finer: the same, with `benchmarks.recall.FIXED` as rungs, too, by their cost;
- confident: mean loss + 1.645 standard errors <= 1 - target, which holds the mean over all queries in about 95 % of
  draws where n is large, and promises nothing where it is small.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.embeddings import collections_of, load, write_json
from benchmarks.recall import TARGETS, _queries, measured, settings_of
from benchmarks.rivals.run import machine
from benchmarks.tables import between
from lateint import Index
from lateint.retrieval.queries import read
from lateint_kernels import Ragged

DRAWS, SIZES, DEVIATIONS = 200, (50, 100, 200, 400, 2000), 1.645
SHOWN = 0.99, 0.95
MARKS = "<!-- rules -->", "<!-- /rules -->"


def conformal(losses: NDArray[np.float64], target: float) -> NDArray[np.bool_]:
    """Which settings ``[settings]`` hold, by losses ``[n, settings]``."""
    held: NDArray[np.bool_] = len(losses) * losses.mean(0) + 1 <= (len(losses) + 1) * (1 - target) + 1e-9
    return held


def confident(losses: NDArray[np.float64], target: float) -> NDArray[np.bool_]:
    """Likewise."""
    error = losses.std(0, ddof=1) / np.sqrt(len(losses))
    held: NDArray[np.bool_] = losses.mean(0) + DEVIATIONS * error <= 1 - target + 1e-9
    return held


def tried(losses: NDArray[np.float64], spent: NDArray[np.float64], rungs: int) -> dict[str, Any]:
    """Each rule for each target and n: ``losses`` ``[queries, settings]``, the first ``rungs`` of which are rungs."""
    everything = np.concatenate([losses, np.zeros((len(losses), 1))], axis=1)
    ladder, scan = [*range(rungs), losses.shape[1]], losses.shape[1]
    finer = [*sorted(range(losses.shape[1]), key=lambda i: spent[i]), scan]
    rules = {"conformal": (conformal, ladder), "finer": (conformal, finer), "confident": (confident, ladder)}
    found: dict[str, Any] = {}
    for target in TARGETS:
        enough = everything.mean(0) <= 1 - target
        cheapest = spent[enough].min()
        for name, (rule, columns) in rules.items():
            costs = everything[:, columns]
            highest = np.maximum.accumulate(costs[:, ::-1], axis=1)[:, ::-1]
            for n in SIZES:
                rng, chosen = np.random.default_rng(0), []
                for _ in range(DRAWS):
                    held = rule(highest[rng.integers(0, len(losses), n)], target)
                    if not held[-1]:
                        break
                    chosen.append(columns[int(np.argmax(held))])
                if len(chosen) == DRAWS:
                    found.setdefault(str(target), {}).setdefault(name, {})[str(n)] = {
                        "met": float(enough[chosen].mean()),
                        "cost_ratio": float(spent[chosen].mean() / cheapest),
                    }
    return found


def collection(folder: Path, nbits: int) -> dict[str, Any]:
    """One collection at one width."""
    data, (name,) = load(folder), collections_of(folder)
    index = Index.build(Ragged.from_lengths(data.tokens, data.lengths), nbits=nbits, threads=1, progress=False)
    queries = read(_queries(folder), index.dim)
    ladder, fixed = settings_of(index)
    losses, spent = measured(index, queries, ladder + fixed)
    return {"collection": name, "nbits": nbits, "queries": len(queries), "targets": tried(losses, spent, len(ladder))}


def page(report: dict[str, Any]) -> str:
    """The table in docs/recall.md."""
    lines = ["| target, collection | rule | " + " | ".join(f"n = {n:,}" for n in SIZES) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(SIZES)]
    for target in SHOWN:
        for row in report["collections"]:
            for rule, found in row["targets"][str(target)].items():
                cells = [f"{found[str(n)]['met']:.0%}, {found[str(n)]['cost_ratio']:.2f}x" if str(n) in found
                         else "too few" for n in SIZES]  # fmt: skip
                lines.append(f"| {target}, {row['collection']} | {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--nbits", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/recall-rules.json"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["collections"] if options.out.exists() else []
    for folder in options.folders:
        new = collection(folder, options.nbits)
        rows = [row for row in rows if row["collection"] != new["collection"]] + [new]
        write_json(options.out, {"machine": machine([0]), "draws": DRAWS, "collections": rows})
    if options.page:
        between(options.page, MARKS, page(json.loads(options.out.read_text())))


if __name__ == "__main__":
    main()
