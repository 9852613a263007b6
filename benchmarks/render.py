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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCS, README = ROOT / "benchmarks" / "results", ROOT / "docs", ROOT / "README.md"
MARKS = ("<!-- benchmarks -->", "<!-- /benchmarks -->")
OURS = "lateint"
COLOURS = {OURS: "#0072B2", "fast-plaid": "#D55E00", "xtr-warp-rs": "#009E73", "torch exact": "#666666"}
GOOD_OVERLAP = 0.92
Row = dict[str, Any]

# What is compared: a name, where it lies in a record, whether less is better, whether the exact reference takes part.
MEASURES: tuple[tuple[str, Callable[[Row], float | None], bool, bool], ...] = (
    ("overlap with the exact top 10", lambda s: default(s)["overlap_at_10"], False, False),
    ("nDCG@10", lambda s: mean(default(s)["ndcg_at_10"].values()), False, False),
    ("p50 latency on one thread", lambda s: default(s)["one_thread"]["p50_ms"], True, True),
    ("p95 latency on one thread", lambda s: default(s)["one_thread"]["p95_ms"], True, True),
    ("p50 latency on two threads", lambda s: default(s).get("two_threads", {}).get("p50_ms"), True, True),
    ("batch throughput", lambda s: default(s).get("queries_per_second"), False, True),
    ("build time", lambda s: s["build"]["seconds"], True, False),
    ("peak memory of the build", lambda s: s["build"]["peak_rss"], True, False),
    ("peak memory of the search", lambda s: s["search_peak_rss"], True, True),
    ("bytes per token", lambda s: s["bytes_per_token"], True, True),
)


def default(system: Row) -> Row:
    """The record of a system's default setting."""
    return next(search for search in system["searches"] if search["default"])


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    numbers = list(values)
    return sum(numbers) / len(numbers)


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, or a dash."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, digits - size)}f}" if abs(value) >= 0.01 else f"{value:.1e}"


def gigabytes(value: float) -> str:
    """Bytes as GB."""
    return f"{value / 1e9:.2f} GB"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def build_time(build: Row) -> str:
    """Seconds by the clock, and of processor time where they were measured."""
    spent = build.get("cpu_seconds")
    return f"{number(build['seconds'])} s" + (f" ({number(spent)} CPU-s)" if spent else "")


def named(system: Row) -> str:
    """A system with its bits: ``lateint, 4 bits``."""
    return f"{system['system']}, {'float32' if system['nbits'] == 32 else str(system['nbits']) + ' bits'}"


def setting_text(search: Row) -> str:
    """A setting in words."""
    words = ", ".join(f"{name} {value}" for name, value in search["setting"].items()) or "as it comes"
    return (
        f"default ({words})" if search["default"] and search["setting"] else "default" if search["default"] else words
    )


def machine_text(machine: Row) -> str:
    """Where and on what code it was measured, as a sentence."""
    state = " with uncommitted changes" if machine["dirty"] else ""
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {memory}, {machine['system']}, Python {machine['python']}, "
        f"numpy {machine['numpy']}; commit `{machine['commit'][:12]}`{state}, {machine['date']}."
    )


def side_by_side(systems: Sequence[Row]) -> str:
    """The main table: every system at its default setting."""
    head = (
        "system",
        "overlap@10",
        "nDCG@10",
        "p50, 1 thread",
        "p95, 1 thread",
        "p50, 2 threads",
        "queries/s, 2 threads",
    )
    head += ("build", "build memory", "search memory", "bytes/token")
    rows = []
    for system in systems:
        chosen = default(system)
        rows.append(
            (
                named(system),
                f"{chosen['overlap_at_10']:.3f}",
                f"{mean(chosen['ndcg_at_10'].values()):.4f}",
                number(chosen["one_thread"]["p50_ms"]) + " ms",
                number(chosen["one_thread"]["p95_ms"]) + " ms",
                number(chosen.get("two_threads", {}).get("p50_ms")) + " ms",
                number(chosen.get("queries_per_second")),
                build_time(system["build"]),
                gigabytes(system["build"]["peak_rss"]),
                gigabytes(system["search_peak_rss"]),
                f"{system['bytes_per_token']:.1f}",
            )
        )
    return table(head, rows)


def settings_table(systems: Sequence[Row]) -> str:
    """Every setting of every system, one thread."""
    rows = [
        (
            named(system),
            setting_text(search),
            f"{search['overlap_at_10']:.3f}",
            f"{mean(search['ndcg_at_10'].values()):.4f}",
            number(search["one_thread"]["p50_ms"]) + " ms",
            number(search["one_thread"]["p95_ms"]) + " ms",
        )
        for system in systems
        for search in system["searches"]
    ]
    return table(("system", "setting", "overlap@10", "nDCG@10", "p50", "p95"), rows)


def losses(systems: Sequence[Row]) -> list[str]:
    """A sentence for each measure in which an engine, whatever its bits, beats ours at default settings.

    The exact reference takes part where it competes: not in quality, which it defines, nor in a build it does not have.
    """
    found = []
    ours = [system for system in systems if system["system"] == OURS]
    for mine in ours:
        for name, value, less, reference in MEASURES:
            own = value(mine)
            better = [
                f"{named(other)} ({shown(name, reached)})"
                for other in systems
                if other["system"] != OURS and (reference or other["nbits"] != 32)
                if own is not None and (reached := value(other)) is not None
                if (reached < own if less else reached > own)
            ]
            if better:
                found.append(f"{name}: {named(mine)} ({shown(name, own)}) loses to {' and '.join(better)}.")
    top = max((search["overlap_at_10"] for mine in ours for search in mine["searches"]), default=1.0)
    for other in systems:
        best = max(other["searches"], key=lambda search: float(search["overlap_at_10"]))
        if other["system"] != OURS and other["nbits"] != 32 and best["overlap_at_10"] > top:
            reached = f"{best['overlap_at_10']:.3f} at {number(best['one_thread']['p50_ms'])} ms"
            found.append(f"highest overlap of any setting: {named(other)} reaches {reached}, lateint {top:.3f}.")
    return found


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


def shown(name: str, value: float | None) -> str:
    """A measure's value with its unit."""
    if value is None:
        return "-"
    if "memory" in name:
        return gigabytes(value)
    if "latency" in name:
        return number(value) + " ms"
    if "time" in name:
        return number(value) + " s"
    return f"{value:.4f}" if value <= 1 else number(value)


def ratios(systems: Sequence[Row]) -> str:
    """How many times ours is better than each rival, default settings."""
    rows = []
    for mine in (system for system in systems if system["system"] == OURS):
        own = default(mine)
        for other in systems:
            if other["system"] == OURS or other["nbits"] == 32:
                continue
            chosen = default(other)
            good = [s["one_thread"]["p50_ms"] for s in other["searches"] if s["overlap_at_10"] >= GOOD_OVERLAP]
            latency = own["one_thread"]["p50_ms"]
            rows.append(
                (
                    named(mine),
                    named(other),
                    times(chosen["one_thread"]["p50_ms"], latency),
                    times(min(good), latency) if good else "never reached",
                    times(own.get("queries_per_second"), chosen.get("queries_per_second")),
                    times(other["build"]["seconds"], mine["build"]["seconds"]),
                    times(other["build"]["peak_rss"], mine["build"]["peak_rss"]),
                    times(other["bytes_per_token"], mine["bytes_per_token"]),
                )
            )
    head = ("", "is better than", "p50, defaults", f"p50, its fastest setting with overlap {GOOD_OVERLAP}")
    return table((*head, "queries/s", "build time", "build memory", "bytes/token"), rows) if rows else ""


def times(more: float | None, less: float | None) -> str:
    """A ratio: ``12x``."""
    return "-" if more is None or less is None else number(more / less) + "x"


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
                f"{size['tokens']:.0e}".replace("e+0", "e"),
                f"{made['documents']:,}",
                number(made["seconds"]) + " s",
                gigabytes(made["peak_anonymous"]),
                f"{made['bytes_per_token']:.1f}",
                number(found["p50_ms"]) + " ms",
                number(found["p95_ms"]) + " ms",
                f"{found['recall_at_10']:.3f}",
                number(found["open_ms"]) + " ms",
            )
        )
    head = ("tokens", "documents", "build", "own memory", "bytes/token", "p50", "p95", "recall@10", "open")
    return table(head, rows)


def repeated() -> list[str]:
    """How far another run of the same command, on the same indexes, was from the one in the table."""
    path = RESULTS / "scale-repeat.json"
    if not path.exists():
        return []
    times = [
        f"{number(size['search']['p50_ms'])} ms at {size['tokens']:.0e}".replace("e+0", "e")
        for size in json.loads(path.read_text())["sizes"]
    ]
    return [
        f"The same searches a few minutes earlier had a p50 of {', '.join(times)} tokens. Two runs can differ by that "
        "much."
    ]


def plot(systems: Sequence[Row], path: Path) -> None:
    """Overlap against latency, a line a system and its bits, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": OURS, "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    for system in systems:
        colour = COLOURS.get(system["system"], "#CC79A7")
        points = sorted((s["one_thread"]["p50_ms"], s["overlap_at_10"]) for s in system["searches"])
        dashed = system["nbits"] == 2
        line = "--" if dashed else "-"
        axes.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=4, label=named(system))
        chosen = default(system)
        at = (chosen["one_thread"]["p50_ms"], chosen["overlap_at_10"])
        axes.plot(*at, "o", markersize=10, markerfacecolor="none", markeredgecolor=colour)
    axes.set_xscale("log")
    axes.set_xlabel("median latency of one query on one thread, ms (log scale)")
    axes.set_ylabel("overlap with the exact top 10")
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set_title("Up and to the left is better; circles are default settings", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def document(rivals: Row, scale: Row | None) -> str:
    """The whole of ``docs/benchmarks.md``."""
    systems, data = rivals["systems"], rivals["data"]
    versions = {name: version for system in systems for name, version in system["versions"].items()}
    if rivals["dense"]:
        versions |= rivals["dense"]["versions"]
    exact = ", ".join(f"{name} {value:.4f}" for name, value in data["exact_ndcg_at_10"].items())
    parts = [
        "# Benchmarks",
        "`python -m benchmarks.render` writes this page from the JSON files in `benchmarks/results`. "
        "[benchmarks/README.md](../benchmarks/README.md) says how to measure them again.",
        "## Beside other engines",
        f"{machine_text(rivals['machine'])} Versions: "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + ".",
        f"All systems index the same saved embeddings of {', '.join(data['collections'])}: {data['documents']:,} "
        f"documents, {data['tokens']:,} tokens of {data['dim']} dimensions, and {data['queries']} queries of "
        f"{data['query_tokens_mean']:.0f} tokens on average. Every system has its default settings. Overlap is with "
        f"the exact top 10 in float32. nDCG@10 of the exact ranking is {exact}. Memory is the process's peak resident "
        "size, with pages of memory-mapped files and imported libraries.",
        side_by_side(systems),
        ratios(systems),
        "![Overlap with the exact top 10 against latency](benchmarks.svg)",
        "### Every setting, one thread",
        settings_table(systems),
    ]
    if rivals["dense"]:
        parts += [
            "### Exact MaxSim kernels",
            "A kernel scores one query of 32 tokens with 1,000 documents of 300 tokens, on one core. Tokens are real "
            "and have 128 dimensions. NumKong packs documents first; the column on preparing has the time of that. "
            "Errors are against float64 on the float32 input. A score is a sum of 32 cosines.",
            dense_table(rivals["dense"]),
        ]
    if scale:
        build_notes = sorted({size["nbits"] for size in scale["sizes"]})
        parts += [
            "## How cost grows",
            f"{machine_text(scale['machine'])} The sets are perturbed real embeddings; `benchmarks/scale.py` says what "
            f"that shows and what it does not. Indexes have {' and '.join(map(str, build_notes))} bits. Searches have "
            f"queries of {scale['sizes'][0]['search']['query_tokens']} tokens, one thread and default settings. Recall "
            "is against the exhaustive scan of the same codes. Own memory is the build's peak without memory-mapped "
            "files, among which is the source of the perturbed tokens.",
            growth(scale),
            *repeated(),
            *(
                [f"An earlier run of the same command built the indexes of {', '.join(earlier)} tokens."]
                if (
                    earlier := [
                        f"{s['tokens']:.0e}".replace("e+0", "e") for s in scale["sizes"] if s["build"].get("reused")
                    ]
                )
                else []
            ),
        ]
    lost = losses(systems) + kernel_losses(rivals["dense"])
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
                "- All numbers are of one machine, one encoder and one set.",
                "- The encoder was not trained for late interaction. nDCG therefore says how little the engine loses, "
                "not how good the retrieval is.",
                "- xtr-warp-rs fills in missing similarities as XTR does. With an encoder trained for that, its "
                "overlap would matter less than its nDCG.",
                "- The other engines import torch, and their memory includes it.",
                f"- A latency is the best of {rivals['rounds']} round{'s' if rivals['rounds'] > 1 else ''}, for every "
                "system alike.",
                "- Builds ran once. CPU-s is their processor time.",
                *[
                    f"- The tables are not of one run: {count} results of single processes were reused."
                    for count in [len(rivals["reused"])]
                    if count
                ],
            )
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme_section(rivals: Row) -> str:
    """What stands between the README's marks."""
    systems, data = rivals["systems"], rivals["data"]
    rows = []
    for system in systems:
        chosen = default(system)
        rows.append(
            (
                named(system),
                f"{chosen['overlap_at_10']:.3f}",
                number(chosen["one_thread"]["p50_ms"]) + " ms",
                number(chosen.get("queries_per_second")),
                build_time(system["build"]),
                gigabytes(system["build"]["peak_rss"]),
                f"{system['bytes_per_token']:.0f}",
            )
        )
    head = ("", "overlap@10", "p50, 1 thread", "queries/s, 2 threads", "build", "build memory", "bytes/token")
    lost = losses(systems)
    verdict = (
        f"Where lateint loses: {' '.join(lost)}" if lost else "In this run lateint loses in none of these columns."
    )
    return "\n\n".join(
        (
            f"{data['tokens']:,} token embeddings of {', '.join(data['collections'])}, the same for all, default "
            f"settings, {rivals['machine']['cpu']}, {rivals['machine']['cores']} cores"
            f"{' (not all in one run)' if rivals['reused'] else ', one run'}:",
            table(head, rows),
            "![Overlap with the exact top 10 against latency](docs/benchmarks.svg)",
            verdict,
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
    scale_file = RESULTS / "scale.json"
    scale = json.loads(scale_file.read_text()) if scale_file.exists() else None
    texts = {DOCS / "benchmarks.md": document(rivals, scale)}
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
        plot(rivals["systems"], drawn)
        (DOCS / "benchmarks.svg").write_text(drawn.read_text())


if __name__ == "__main__":
    main()
