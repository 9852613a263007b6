"""Writes the tables of ``docs/training.md`` from the JSON files in ``benchmarks/results``.

python -m benchmarks.training_page            write them
python -m benchmarks.training_page --check    fail if they are not what the JSON files say
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.embeddings import read_json
from benchmarks.render import DOCS, RESULTS
from benchmarks.tables import Row, number, table, with_tables

PAGE = DOCS / "training.md"
BASE = ("torch", "float32")
SUITES = {
    "pylate": "PyLate",
    "sentence_transformers": "sentence-transformers",
    "colpali": "colpali-engine",
    "late_interaction_kernels": "late-interaction-kernels",
    "flash_maxsim": "flash-maxsim",
}
ADAPTED = {"pylate": "PyLate", "sentence_transformers": "sentence-transformers", "colpali": "colpali-engine"}


def cpu(results: Row) -> str:
    """Forward, and forward with backward, beside the others."""
    measured = results["train"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(measured["versions"].items()))
    parts = [f"{measured['rows'][0]['threads']} threads, {measured['isa']}; {versions}."]
    for shape in dict.fromkeys(row["shape"] for row in measured["rows"]):
        rows = [row for row in measured["rows"] if row["shape"] == shape]
        base = next(row for row in rows if (row["system"], row["dtype"]) == BASE)
        body = [
            (
                row["system"],
                row["dtype"],
                _against(row, base, "forward_ms", " ms", 1),
                _against(row, base, "step_ms", " ms", 1),
                _against(row, base, "extra_bytes", " MB", 1e6),
            )
            for row in sorted(rows, key=lambda row: row["forward_ms"])
        ]
        head = (f"`{shape}`", "dtype", "forward", "forward and backward", "extra memory")
        parts.append(table(head, body))
        parts += [_lost(row, rows) for row in rows if row["system"] != "lateint"]
    return "\n\n".join(part for part in parts if part)


def _lost(row: Row, rows: list[Row]) -> str:
    """A sentence where a rival's forward is faster than ours of the same dtype."""
    ours = next(other for other in rows if (other["system"], other["dtype"]) == ("lateint", row["dtype"]))
    if ours["forward_ms"] <= row["forward_ms"]:
        return ""
    return (
        f"lateint's forward of `{row['shape']}` in {row['dtype']} loses to {row['system']}, whose scores are off by "
        f"{row['errors']['scores']:.1e}, lateint's by {ours['errors']['scores']:.1e}."
    )


def errors(results: Row) -> str:
    """Largest errors against float64."""
    rows = [row for row in results["train"]["rows"] if row["system"] in ("lateint", "torch")]
    body = [
        (
            f"`{row['shape']}`",
            row["dtype"],
            row["system"],
            *(f"{row['errors'][name]:.1e}" for name in ("scores", "queries", "documents")),
        )
        for row in sorted(rows, key=lambda row: (row["shape"], row["dtype"], row["system"]))
    ]
    head = ("dtype", "", "scores", "gradient of queries", "gradient of documents")
    others = [
        (row["operator"], row["dtype"], row["system"], *(f"{error:.1e}" for error in row["errors"].values()))
        for row in results["operator-errors"]["rows"]
    ]
    return table(("shape", *head), body) + "\n\n" + table(("operator", *head), others)


def adapters(results: Row) -> str:
    """What the packages' own tests of scores and steps say."""
    body = []
    for name, row in results["adapters"]["adapters"].items():
        versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        outcome = f"{row['passed']} passed" + (f", {row['failed']} failed" if row["failed"] else "")
        body.append((ADAPTED[name], versions, outcome, f"{row['scores']['speedup']}x", f"{row['step']['speedup']}x"))
    return table(("package", "versions", "tests", "scores", "scores with backward"), body)


def coding(results: Row) -> str:
    """What codes cost, and what training with the codec in the loop gives back."""
    row, runs = results["coding"], results["coding"]["runs"]
    settings = row["settings"]
    bits = [f"{nbits} bit{'s' * (nbits > 1)}" for nbits in settings["nbits"]]
    arms = {"before": "before", "exact": "trained on exact scores"}
    arms |= {f"{nbits} bits": f"trained on codes of {nbits} bit{'s' * (nbits > 1)}" for nbits in settings["train_bits"]}
    body = []
    for arm, label in arms.items():
        found = [run for name, run in runs.items() if name.split(",")[0] == arm]
        if found:
            columns = [[run["exact_ndcg_at_10"] for run in found]]
            columns += [[run[f"{nbits} bits"]["ndcg_at_10"] for run in found] for nbits in settings["nbits"]]
            body.append((label, str(len(found)), *map(_spread, columns)))
    layers = (
        f"The upper {settings['layers']} of MiniLM's layers and a projection" if settings["layers"] else "A projection"
    )
    text = (
        f"nDCG@10 on {row['collection']}, {settings['queries']} pairs of the test split among {settings['documents']} "
        f"documents of at most {settings['tokens'] - 2} tokens, {settings['dim']} components a token, "
        f"{settings['centroids']} centroids, exhaustive scans. {layers} learned from {settings['pairs']} pairs "
        f"in {settings['steps']} steps of {settings['batch']}, with a new codec every {settings['refresh']}; means "
        "over seeds, with the range."
    )
    return text + "\n\n" + table(("", "seeds", "exact scores", *bits), body)


def _spread(numbers: list[float]) -> str:
    mean = sum(numbers) / len(numbers)
    return f"{mean:.4f}" if len(numbers) == 1 else f"{mean:.4f} ({min(numbers):.4f} to {max(numbers):.4f})"


def peers(results: Row) -> str:
    """The packages' own tests, as they are and with ours; and why some fail."""
    suites = results["peers"]["suites"]
    body = [
        (
            f"{SUITES[name]} ({row['tests_of']})",
            str(sum(row["as_they_are"].values())),
            str(row["as_they_are"]["passed"]),
            str(row["with_lateint"]["passed"]),
            str(len(row["lost"])),
            str(row["scores_by_lateint"]),
        )
        for name, row in suites.items()
    ]
    head = (
        "suite (version of the tests)",
        "tests",
        "pass as they are",
        "pass with lateint",
        "lost",
        "calls of lateint",
    )
    reasons = [
        (SUITES[name], str(list(row["lost"].values()).count(why)), why)
        for name, row in suites.items()
        for why in dict.fromkeys(row["lost"].values())
    ]
    return table(head, body) + "\n\n" + table(("suite", "lost", "why"), reasons)


def operators(results: Row) -> str:
    """Other scores and pooling, beside the packages' own."""
    body = [
        (ADAPTED[name], operator, f"{row['theirs_ms']} ms", f"{row['ours_ms']} ms", f"{row['speedup']}x")
        for name, found in results["operators"]["packages"].items()
        for operator, row in found["operators"].items()
    ]
    product = results["operators"]["packages"]["colpali"]["product_ms"]
    text = (
        f"One product of all query tokens with all document tokens took torch {product['float32']} ms in float32 and "
        f"{product['bfloat16']} ms in bfloat16."
    )
    return table(("package", "operator", "theirs", "lateint", ""), body) + "\n\n" + text


def _against(row: Row, base: Row, key: str, unit: str, size: float) -> str:
    """A figure, and how many times less it is than torch's in float32."""
    if row.get(key) is None:
        return "-"
    return f"{number(row[key] / size)}{unit} ({number(base[key] / row[key], 2)}x)"


def main() -> None:
    """Renders everything, or checks that it is rendered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    args = parser.parse_args()
    same = ("adapters", "coding", "peers", "operators", "operator-errors")
    files = {"train": "cpu-train", **{name: name for name in same}}
    results = {
        name: read_json(RESULTS / f"{file}.json") for name, file in files.items() if (RESULTS / f"{file}.json").exists()
    }
    later = [render for render in (coding, peers, operators) if render.__name__ in results]
    page = PAGE.read_text()
    rendered = with_tables(page, results, (cpu, errors, adapters, *later))
    if args.check and rendered != page:
        sys.exit(f"{PAGE.name} is not what benchmarks/results say; run python -m benchmarks.training_page")
    if not args.check:
        PAGE.write_text(rendered)


if __name__ == "__main__":
    main()
