"""The tables, sentences and the plot of what `benchmarks.rivals.run` measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import Row, gigabytes, number, table

OURS, FIRST = "lateint", "4 bits"  # the index whose default setting the others' times are divided by
EXACT = ("torch exact", "Qdrant local mode")  # they define quality, and have no index to build
COLOURS = {
    OURS: "#0072B2",
    "fast-plaid": "#D55E00",
    "xtr-warp-rs": "#009E73",
    "TACHIOM": "#CC79A7",
    "colsearch": "#E69F00",
    "LanceDB": "#56B4E9",
    "Qdrant local mode": "#999999",
    "torch exact": "#333333",
}
LEGEND = 1.0  # inches above the panels
BUSY = 0.1  # other work's share of the processors from which on it is said


def named(record: Row) -> str:
    """A system and its index: ``lateint, 4 bits``."""
    return f"{record['system']}, {record['variant']}"


def done(system: Row) -> list[Row]:
    """The settings that have answered."""
    return [search for search in system["searches"] if "overlap_at_10" in search]


def default(system: Row) -> Row | None:
    """The record of the default setting, where it has answered."""
    return next((search for search in done(system) if search["default"]), None)


def defaults(case: Row) -> Iterator[tuple[Row, Row]]:
    """Systems with their default settings."""
    for system in case["systems"]:
        if (search := default(system)) is not None:
            yield system, search


def exact(system: Row, search: Row) -> bool:
    """Whether all documents are scored on what is not compressed."""
    return system["system"] in EXACT or "bypass_vector_index" in search["setting"]


def on_the_same(mine: Row, theirs: Row, measure: str) -> tuple[float, float] | None:
    """A measure of quality of two searches over the queries that both were asked: slow engines are asked the first ones
    only. A record without values of single queries has its value over all. None where nobody judged."""
    count = min(search["one_thread"]["queries"] for search in (mine, theirs))

    def mean(search: Row) -> float | None:
        values = search.get("of_queries", {}).get(measure)
        if values is None or search["one_thread"]["queries"] == count:
            return search[measure]  # type: ignore[no-any-return]
        return float(sum(values[:count]) / count)

    own, other = mean(mine), mean(theirs)
    return None if own is None or other is None else (own, other)


def asked_less(case: Row, search: Row) -> bool:
    """Whether it is about a part of the queries."""
    return bool(search["one_thread"]["queries"] < case["queries"])


def overlap_text(case: Row, search: Row) -> str:
    """An overlap, with a star where it is that of some queries only."""
    return f"{search['overlap_at_10']:.3f}{'*' * asked_less(case, search)}"


def setting_text(search: Row) -> str:
    """A setting in words."""
    setting = search["setting"]
    words = ", ".join(name if value is True else f"{name} {value}" for name, value in setting.items())
    return f"default ({words})" if search["default"] and words else "default" if search["default"] else words


def times(value: float | None) -> str:
    """A ratio: ``12x``."""
    return "-" if value is None else number(value) + "x"


def milliseconds(value: float | None) -> str:
    """A time, or a dash."""
    return "-" if value is None else number(value) + " ms"


def collections_table(cases: Sequence[Row]) -> str:
    """What is asked of what."""
    rows = []
    for case in cases:
        _, low, _, high, _ = case["query_tokens"]
        spread = f", mostly {low} to {high}" if high > low else ""
        rows.append(
            (
                case["case"],
                f"{case['documents']:,}",
                f"{case['tokens']:,}",
                f"{case['queries']}",
                f"{case['query_tokens_mean']:.0f}{spread}",
                "-" if case["exact_ndcg_at_10"] is None else f"{case['exact_ndcg_at_10']:.4f}",
            )
        )
    return table(("case", "documents", "tokens", "queries", "tokens a query", "nDCG@10 of the exact ranking"), rows)


def defaults_table(case: Row) -> str:
    """Every system at its default setting."""
    rows = []
    for system, search in defaults(case):
        two = search.get("two_threads", {})
        rows.append(
            (
                named(system),
                overlap_text(case, search),
                "-" if search["ndcg_at_10"] is None else f"{search['ndcg_at_10']:.4f}{'*' * asked_less(case, search)}",
                milliseconds(search["one_thread"]["p50_ms"]),
                times(search["times_lateint"]),
                milliseconds(search["one_thread"]["p95_ms"]),
                times(1 / two["times_one_thread"] if two else None),
                number(search.get("queries_per_second")),
                gigabytes(system["search_peak_rss"]),
            )
        )
    head = ("system", "overlap@10", "nDCG@10", "p50", "times lateint's", "p95", "faster with 2 threads")
    return table((*head, "queries/s, 2 threads", "memory"), rows)


def settings_table(case: Row) -> str:
    """Every setting of every system, one thread."""
    rows = [
        (
            named(system),
            setting_text(search),
            f"{search['overlap_at_10']:.3f}",
            "-" if search["ndcg_at_10"] is None else f"{search['ndcg_at_10']:.4f}",
            milliseconds(search["one_thread"]["p50_ms"]),
            times(search["times_lateint"]),
            str(search["one_thread"]["queries"]),
        )
        for system in case["systems"]
        for search in done(system)
    ]
    head = ("system", "setting", "overlap@10", "nDCG@10", "p50", "times lateint's", "queries asked")
    return table(head, rows)


def at_equal_overlap(case: Row, rival: Row) -> tuple[float, Row] | None:
    """How many times as long as ours the rival's best setting takes, and that setting; None where ours finds less.

    Each of its settings is compared with the fastest of ours that finds at least as much.
    """
    best = None
    for search in done(rival):
        if exact(rival, search):
            continue
        as_good = [mine["times_lateint"] for mine in of_ours(case) if finds_as_much(mine, search)]
        if not as_good:
            return None
        ratio = search["times_lateint"] / min(as_good)
        if best is None or ratio < best[0]:
            best = ratio, search
    return best


def finds_as_much(mine: Row, theirs: Row) -> bool:
    """Of the same queries, see `on_the_same`."""
    pair = on_the_same(mine, theirs, "overlap_at_10")
    return pair is not None and pair[0] >= pair[1]


def of_ours(case: Row) -> list[Row]:
    """The settings of our indexes that have answered."""
    return [search for system in case["systems"] if system["system"] == OURS for search in done(system)]


def equal_table(cases: Sequence[Row]) -> str:
    """The smallest ratio of each rival at equal overlap, a column a case."""
    names = list(dict.fromkeys(named(system) for case in cases for system in case["systems"]))
    rows = []
    for name in names:
        cells = []
        for case in cases:
            rival = next((system for system in case["systems"] if named(system) == name), None)
            if rival is None or rival["system"] == OURS or not any(not exact(rival, s) for s in done(rival)):
                cells.append("-")
                continue
            best = at_equal_overlap(case, rival)
            cells.append(f"{times(best[0])} at {overlap_text(case, best[1])}" if best else "lateint finds less")
        if set(cells) != {"-"}:
            rows.append((name, *cells))
    return table(("", *(case["case"] for case in cases)), rows)


def busy(build: Row) -> bool:
    """Whether other work ran beside a build, or nobody knows."""
    return float(build.get("other_work", 1.0)) > BUSY


def build_text(build: Row) -> str:
    """Seconds by the clock and of processor time; a star where other work ran beside it."""
    star = "*" if busy(build) else ""
    return f"{number(build['seconds'])} s{star} ({number(build['cpu_seconds'])} CPU-s)"


def builds_table(builds: Sequence[Row]) -> str:
    """What making the indexes took."""
    rows = [
        (
            build["collection"],
            named(build),
            build_text(build),
            gigabytes(build["peak_rss"]),
            f"{build['bytes_per_token']:.1f}",
        )
        for build in builds
    ]
    note = "\n\n\\* Other work ran beside this build: by the clock it is longer than it need be."
    stars = note if any(map(busy, builds)) else ""
    return table(("collection", "system", "build", "memory", "bytes/token"), rows) + stars


# What is compared: a name, the value in the record of a default setting, whether less is better.
MEASURES: tuple[tuple[str, Callable[[Row], float | None], bool], ...] = (
    ("overlap@10", lambda s: s["overlap_at_10"], False),
    ("nDCG@10", lambda s: s["ndcg_at_10"], False),
    ("p50", lambda s: s["one_thread"]["p50_ms"], True),
    ("p95", lambda s: s["one_thread"]["p95_ms"], True),
    ("queries/s", lambda s: s.get("queries_per_second"), False),
)
QUALITY = {"overlap@10": "overlap_at_10", "nDCG@10": "ndcg_at_10"}
BUILDS = (
    ("CPU-s of the build", "cpu_seconds"),
    ("memory of the build", "peak_rss"),
    ("bytes/token", "bytes_per_token"),
)


def losses(cases: Sequence[Row], builds: Sequence[Row], only: str | None = None) -> list[str]:
    """A sentence for each measure in which an engine beats ours, or ``only`` this index, at default settings.

    Engines that score everything exactly take part where they compete: not in quality, and not in builds.
    """
    found = []
    for case in cases:
        for mine, search in defaults(case):
            if mine["system"] == OURS and only in (None, mine["variant"]):
                found += _lost(case, mine, search)
        found += _found_less(case)
    for mine in builds:
        if mine["system"] != OURS or only not in (None, mine["variant"]):
            continue
        for name, key in BUILDS:
            better = [
                f"{named(other)} ({_shown(key, other[key])})"
                for other in builds
                if other["collection"] == mine["collection"]
                and other["system"] not in (OURS, *EXACT)
                and other[key] < mine[key]
            ]
            if better:
                own = f"{named(mine)} ({_shown(key, mine[key])})"
                found.append(f"{mine['collection']}, {name}: {own} loses to {', '.join(better)}.")
    return found


def _found_less(case: Row) -> list[str]:
    """Where no setting of ours finds as much as one of another engine does."""
    most = None
    for system in case["systems"]:
        for search in done(system):
            if system["system"] == OURS or exact(system, search):
                continue
            pairs = [on_the_same(mine, search, "overlap_at_10") or (0.0, 0.0) for mine in of_ours(case)]
            own, theirs = max(pairs, default=(0.0, search["overlap_at_10"]))
            if theirs > own and (most is None or theirs > most[0]):
                most = theirs, own, overlap_text(case, search)
    return [f"{case['case']}, highest overlap of any setting: {most[2]}, lateint {most[1]:.3f}."] if most else []


def _lost(case: Row, mine: Row, search: Row) -> list[str]:
    """Where the default setting of one of our indexes is beaten."""
    found = []
    for name, value, less in MEASURES:
        better = [
            f"{named(system)} ({_shown(name, pair[1])}{_of_fewer(name, pair[0], search, other)})"
            for system, other in defaults(case)
            if system["system"] != OURS and (less or name == "queries/s" or not exact(system, other))
            if (pair := _pair(name, value, search, other)) is not None
            if (pair[1] < pair[0] if less else pair[1] > pair[0])
        ]
        if better:
            own = _shown(name, value(search))
            found.append(f"{case['case']}, {name}: {named(mine)} ({own}) loses to {', '.join(better)}.")
    return found


def _pair(name: str, value: Callable[[Row], float | None], mine: Row, theirs: Row) -> tuple[float, float] | None:
    """A measure of two default settings, quality of the same queries; None where it is not known of both."""
    if name in QUALITY:
        return on_the_same(mine, theirs, QUALITY[name])
    own, other = value(mine), value(theirs)
    return None if own is None or other is None else (own, other)


def _of_fewer(name: str, own: float, mine: Row, theirs: Row) -> str:
    """How many queries a quality is of, where that is fewer than ours, and what ours is on these, if that is known."""
    asked = theirs["one_thread"]["queries"]
    if name not in QUALITY or asked >= mine["one_thread"]["queries"]:
        return ""
    return f" on {asked} queries" + (f", lateint {_shown(name, own)}" if "of_queries" in mine else "")


def _shown(name: str, value: float | None) -> str:
    """A measure's value with its unit."""
    if value is None:
        return "-"
    if name == "peak_rss":
        return gigabytes(value)
    if name in ("p50", "p95"):
        return milliseconds(value)
    return f"{value:.4f}" if name == "nDCG@10" else f"{value:.3f}" if name == "overlap@10" else number(value)


def load_text(rivals: Row) -> str:
    """A sentence about other work on the machine, or nothing."""
    share = max(system["other_work"] for case in rivals["cases"] for system in case["systems"])
    busy = f"Other work took up to {share:.0%} of the processors meanwhile, so times by the clock are too long"
    return f"{busy}; ratios are of processor time." if share > BUSY else ""


def one_run(rivals: Row) -> bool:
    """Whether all answers are of one commit and day."""
    runs = {(s["run"]["commit"], s["run"]["date"]) for case in rivals["cases"] for s in case["systems"]}
    return len(runs) == 1


def versions(rivals: Row) -> str:
    """Every package with its version."""
    found = {name: v for case in rivals["cases"] for s in case["systems"] for name, v in s["versions"].items()}
    if rivals["dense"]:
        found |= rivals["dense"]["versions"]
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items(), key=lambda item: item[0].lower()))


def summary(rivals: Row) -> str:
    """README's table: a row a system, a column a case."""
    cases = rivals["cases"]
    sizes = {named(build): build["bytes_per_token"] for build in rivals["builds"]}
    rows = []
    for name in dict.fromkeys(named(system) for case in cases for system in case["systems"]):
        cells = []
        for case in cases:
            search = next((s for system, s in defaults(case) if named(system) == name), None)
            cells.append(
                f"{overlap_text(case, search)}, {milliseconds(search['one_thread']['p50_ms'])}" if search else "-"
            )
        rows.append((name, *cells, f"{sizes[name]:.0f}" if name in sizes else "-"))
    return table(("overlap@10, p50", *(case["case"] for case in cases), "bytes/token"), rows)


def plot(cases: Sequence[Row], path: Path) -> None:
    """Overlap against latency, a panel a case and a line an index, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": OURS, "svg.fonttype": "none", "font.family": "sans-serif"})
    down = (len(cases) + 1) // 2
    across = min(len(cases), 2)
    figure, panels = plt.subplots(down, across, figsize=(4.6 * across, 3.4 * down + LEGEND), squeeze=False)
    handles: dict[str, Any] = {}
    for axes, case in zip(panels.ravel(), cases, strict=False):
        seen: dict[str, int] = {}
        for system in case["systems"]:
            if not done(system):
                continue
            number_of = seen[system["system"]] = seen.get(system["system"], -1) + 1
            colour = COLOURS.get(system["system"], "#CC79A7")
            points = sorted((s["one_thread"]["p50_ms"], s["overlap_at_10"]) for s in done(system))
            line = "--" if number_of else "-"
            (drawn,) = axes.plot(*zip(*points, strict=True), line, color=colour, marker="o", markersize=3)
            handles.setdefault(named(system), drawn)
            if (chosen := default(system)) is not None:
                at = (chosen["one_thread"]["p50_ms"], chosen["overlap_at_10"])
                axes.plot(*at, "o", markersize=9, markerfacecolor="none", markeredgecolor=colour)
        axes.set_xscale("log")
        axes.set_title(f"{case['case']}, {case['query_tokens_mean']:.0f} tokens a query", fontsize=9)
        axes.grid(True, which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.ravel()[len(cases) :]:
        axes.set_visible(False)
    figure.supxlabel("median latency of one query on one thread, ms (log scale)", fontsize=9)
    figure.supylabel("overlap with the exact top 10", fontsize=9)
    figure.legend(list(handles.values()), list(handles), frameon=False, fontsize=8, ncols=3, loc="upper center")
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.8 * LEGEND / (3.4 * down + LEGEND)))
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
