"""Writes ``docs/benchmarks.md``, its plot and the README's table from the JSON files in ``benchmarks/results``.

    python -m benchmarks.render            write them
    python -m benchmarks.render --check    fail if they are not what the JSON files say

Nothing is measured here and no number is typed here: one that is in no JSON file does not exist.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.rivals import page
from benchmarks.tables import gigabytes, machine_text, machines_text, number, power, table

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCS, README = ROOT / "benchmarks" / "results", ROOT / "docs", ROOT / "README.md"
MARKS = ("<!-- benchmarks -->", "<!-- /benchmarks -->")
Row = dict[str, Any]
OURS = page.OURS


def kernel_losses(dense: Row | None) -> list[str]:
    """A sentence for each exact kernel that is faster than ours on the same dtype."""
    rows = dense["rows"] if dense else []
    ours: dict[str, float] = {}  # the fastest of "lateint" and "lateint Sketched"
    for row in rows:
        if row["system"].startswith(OURS):
            ours[row["dtype"]] = min(row["ms"], ours.get(row["dtype"], row["ms"]))
    return [
        f"exact kernels, {row['dtype']}: {row['system']} takes {number(row['ms'])} ms, "
        f"lateint {number(ours[row['dtype']])} ms; {row['system']}'s largest error is {row['max_error']:.1e}, and "
        f"preparing its documents takes {number(row['preparation_ms'])} ms."
        for row in rows
        if not row["system"].startswith(OURS) and row["ms"] < ours.get(row["dtype"], 0.0)
    ]


def dense_table(dense: Row) -> str:
    """Exact kernels on one core."""
    rows = sorted(dense["rows"], key=lambda row: (row["dtype"], row["ms"]))
    return table(
        ("kernel", "dtype", "1,000 documents", "preparing the documents", "largest error"),
        [
            (
                row["system"],
                row["dtype"],
                number(row["ms"]) + " ms",
                number(row["preparation_ms"]) + " ms" if row["preparation_ms"] > 0.1 else "-",
                f"{row['max_error']:.1e}",
            )
            for row in rows
        ],
    )


def growth(scale: Row) -> str:
    """The table of sizes."""
    rows = []
    for size in scale["sizes"]:
        made, found = size["build"], size["search"]
        rows.append(
            (
                power(size["tokens"]),
                f"{made['documents']:,}",
                number(made["seconds"]) + " s",
                gigabytes(made["peak_anonymous"]),
                f"{made['bytes_per_token']:.1f}",
                number(found["p50_ms"]) + " ms",
                number(found["p95_ms"]) + " ms",
                f"{found['recall_at_10']:.3f}",
                number(found["cold"]["p50_ms"]) + " ms",
                number(found["open_ms"]) + " ms",
                number(found["cold"]["open_ms"]) + " ms",
            )
        )
    head = ("tokens", "documents", "build", "own memory", "bytes/token", "p50", "p95", "recall@10", "p50, cold")
    return table((*head, "opened", "opened, cold"), rows)


def beside_others(rivals: Row) -> list[str]:
    """The section on other engines, in paragraphs."""
    cases = rivals["cases"]
    slow = min(s["one_thread"]["queries"] for case in cases for system in case["systems"] for s in page.done(system))
    parts = [
        "## Beside other engines",
        f"{machine_text(rivals['machine'])} Versions: {page.versions(rivals)}. {page.load_text(rivals)}".strip(),
        "Each engine is a process with its index open, of the same saved embeddings. All are asked the same queries "
        'in turn, ten at a time, so a busy moment of the machine hurts all alike. "Times lateint\'s" is the median, '
        f"query by query, of the processor time divided by that of lateint with {page.FIRST} at its default setting. "
        "Times are of one thread, where the head does not say two. A slow engine answers fewer queries, "
        f"{slow} at least; a star marks what is of these alone. Overlap is with the exact top 10 in float32. Memory is "
        "the searching process's peak resident size, with pages of memory-mapped files and imported libraries.",
        page.collections_table(cases),
        "![Overlap with the exact top 10 against latency](benchmarks.svg)",
        "### At equal overlap",
        "How many times as long as lateint the rival takes at its best setting, and the overlap of that setting. Each "
        "setting is compared with the fastest of lateint's, of either index, that finds at least as much. A star marks "
        f"the overlap of some of the queries{'' if same_queries(cases) else ', compared with that of all'}.",
        page.equal_table(cases),
    ]
    for case in cases:
        parts += [f"### {case['case']}, default settings", page.defaults_table(case)]
    parts += ["### Builds", page.builds_table(rivals["builds"])]
    for case in cases:
        parts += [f"### {case['case']}, every setting", page.settings_table(case)]
    return parts


def same_queries(cases: list[Row]) -> bool:
    """Whether lateint's overlap is known query by query, for engines that were asked only some of them."""
    return all("of_queries" in search for case in cases for search in page.of_ours(case))


def on_avx2(rivals: Row) -> list[str]:
    """The section on the engines that were asked on a processor without AVX-512, in paragraphs."""
    cases = rivals["cases"]
    parts = [
        "## On a processor without AVX-512",
        f"{machine_text(rivals['machine'])} Versions: {page.versions(rivals)}. {page.load_text(rivals)}".strip(),
        "A run of its own, with what the run above lacks. Its times compare with each other only. Qdrant's "
        "local mode scores every document in Python, so Vaswani is cut here. It locks its folder, so no second process "
        "asks it with two threads. Stars are those of the section above.",
        page.collections_table(cases),
        page.equal_table(cases),
    ]
    for case in cases:
        parts += [f"### {case['case']}, default settings, AVX2", page.defaults_table(case)]
    return [*parts, "### Builds, AVX2", page.builds_table(rivals["builds"])]


def document(rivals: Row, others: Row | None, scale: Row | None) -> str:
    """The whole of ``docs/benchmarks.md``."""
    parts = [
        "# Benchmarks",
        "`python -m benchmarks.render` writes this page from the JSON files in `benchmarks/results`. "
        "[benchmarks/README.md](../benchmarks/README.md) says how to measure them again.",
        *beside_others(rivals),
    ]
    if rivals["dense"]:
        parts += [
            "### Exact MaxSim kernels",
            "A kernel scores one query of 32 tokens with 1,000 documents of 300 tokens, on one core. Tokens are real "
            "and have 128 dimensions. NumKong packs documents first; the column on preparing has the time of that. "
            "Errors are against float64 on the float32 input. A score is a sum of 32 cosines.",
            dense_table(rivals["dense"]),
        ]
    parts += on_avx2(others) if others else []
    if scale:
        build_notes = sorted({size["nbits"] for size in scale["sizes"]})
        parts += [
            "## How cost grows",
            f"{machines_text(scale['sizes'])} The sets are perturbed real embeddings; `benchmarks/scale.py` says what "
            f"that shows and what it does not. Indexes have {' and '.join(map(str, build_notes))} bits. Searches have "
            f"queries of {scale['sizes'][0]['search']['query_tokens']} tokens, one thread and default settings. Recall "
            "is against the exhaustive scan of the same codes. Own memory is the build's peak without memory-mapped "
            "files; some 2.4 GB of it are what the perturbed tokens are made of. Making "
            f"these takes {number(scale['sizes'][-1]['build']['stream_seconds_a_pass'])} s a pass at the largest size, "
            "and a build of an iterable reads them three times. A cold search is the first one of each query, "
            "with nothing of the index in the system's cache. "
            "[scale.md](scale.md#how-cost-grows-and-what-more-tokens-would-take) has more about the largest sizes.",
            growth(scale),
        ]
    cases = rivals["cases"]
    lost = page.losses(cases, rivals["builds"]) + kernel_losses(rivals["dense"])
    lost += [f"AVX2: {sentence}" for sentence in page.losses(others["cases"], others["builds"])] if others else []
    parts += [
        "## Where lateint loses",
        "\n".join(
            f"- {sentence if sentence.startswith('nDCG') else sentence[0].upper() + sentence[1:]}" for sentence in lost
        )
        if lost
        else "lateint loses nowhere in the tables above, at default settings and in this run.",
        "## Reading these numbers honestly",
        "\n".join(
            (
                "- All numbers are of one machine and one encoder.",
                "- The encoder was not trained for late interaction. nDCG therefore says how little an engine loses, "
                "not how good the retrieval is.",
                "- xtr-warp-rs fills in missing similarities as XTR does. With an encoder trained for that, its "
                "overlap would matter less than its nDCG.",
                "- Where a loss names a number of queries, the engine was too slow to be asked more. "
                + (
                    "What lateint is on these stands beside it."
                    if same_queries(cases)
                    else "lateint's figure is of all queries, so the two may differ by the queries alone."
                ),
                "- TACHIOM clusters by the tokens' vocabulary numbers, which it gets.",
                "- fast-plaid, xtr-warp-rs and colsearch import torch, and their memory includes it. Qdrant is its "
                "client's local mode, in Python, which is meant for tests; its server is another engine. LanceDB's "
                "batches are its queries one by one.",
                *(
                    ["- The exact kernels were measured at an earlier commit."]
                    if (rivals["dense"] or {}).get("earlier")
                    else []
                ),
                "- CPU-s, processor time, compares builds better than time by the clock.",
                *([] if page.one_run(rivals) else ["- Not one run: some engines were asked on another day or commit."]),
            )
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme_section(rivals: Row) -> str:
    """What stands between the README's marks."""
    cases, machine = rivals["cases"], rivals["machine"]
    lost = page.losses(cases, rivals["builds"], page.FIRST)
    return "\n\n".join(
        (
            "The same saved embeddings for all, default settings, one thread, engines asked in turn, "
            f"{machine['cpu']}{', one run' if page.one_run(rivals) else ' (not all in one run)'}. Each cell is the "
            "overlap with the exact top 10 and the median latency; a star marks an engine that is too slow to be asked "
            f"all queries, and the overlap of those that it was asked. {page.load_text(rivals)}".strip(),
            page.summary(rivals),
            "![Overlap with the exact top 10 against latency](docs/benchmarks.svg)",
            f"Where lateint with {page.FIRST} loses: {' '.join(lost)}"
            if lost
            else f"In this run lateint with {page.FIRST} loses in none of what docs/benchmarks.md compares.",
        )
    )


def with_section(readme: str, section: str) -> str:
    """The README with the text between its marks replaced."""
    if readme.count(MARKS[0]) != 1 or readme.count(MARKS[1]) != 1:
        raise ValueError(f"README.md must contain {MARKS[0]} and {MARKS[1]} once each")
    before, rest = readme.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    return f"{before}{MARKS[0]}\n{section}\n{MARKS[1]}{after}"


def main() -> None:
    """Renders everything, or checks that it is rendered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    args = parser.parse_args()
    rivals = json.loads((RESULTS / "cpu-rivals.json").read_text())
    others, scale = (
        json.loads(file.read_text()) if (file := RESULTS / name).exists() else None
        for name in ("cpu-rivals-avx2.json", "scale.json")
    )
    texts = {DOCS / "benchmarks.md": document(rivals, others, scale)}
    if README.exists():
        texts[README] = with_section(README.read_text(), readme_section(rivals))
    if args.check:
        stale = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
        if stale:
            sys.exit(f"not what benchmarks/results say: {', '.join(stale)}; run python -m benchmarks.render")
        return
    DOCS.mkdir(exist_ok=True)
    for path, text in texts.items():
        path.write_text(text)
    with tempfile.TemporaryDirectory() as folder:  # so that an interrupted plot leaves the old one
        drawn = Path(folder) / "benchmarks.svg"
        page.plot(rivals["cases"], drawn)
        (DOCS / "benchmarks.svg").write_text(drawn.read_text())


if __name__ == "__main__":
    main()
