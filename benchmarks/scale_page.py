"""Writes the tables of ``docs/scale.md`` from ``scale.json``, ``scale-avx2.json`` and ``agreement.json``.

python -m benchmarks.scale_page            write them
python -m benchmarks.scale_page --check    fail if they are not what the JSON file says
"""

import argparse
import sys

from benchmarks.embeddings import read_json
from benchmarks.render import DOCS, RESULTS
from benchmarks.tables import Row, gigabytes, machine_text, machines_text, number, power, table, with_tables

PAGE = DOCS / "scale.md"
BEYOND = (1e9, 1e10, 1e11)
ENOUGH = 0.95  # recall of a part
HIT = 12  # bytes: an id and a score


def grown(results: Row) -> str:
    """What an index costs, and a search in it, as it grows."""
    sizes = results["sizes"]
    rows = []
    for size in sizes:
        built, found = size["build"], size["search"]
        rows.append(
            (
                power(size["tokens"]),
                f"{number(built['seconds'])} s",
                gigabytes(built["stats"]["bytes"]),
                _search(found),
                f"{number(found['p95_ms'])} ms",
                f"{number(found['together']['p50_ms'])} ms" if "together" in found else "-",
                _search(found["cheaper"]),
                f"{number(found['cold']['p50_ms'])} ms",
                f"{number(found['cold']['open_ms'])} ms",
            )
        )
    others = [size["search"]["cheaper"] for size in sizes]
    cells = " or ".join(str(cells) for cells in sorted({other["cells"] for other in others}))
    cheaper = f"nprobe {others[0]['nprobe']}, cells {cells}"
    head = (
        "tokens",
        "build",
        "index",
        "p50 and recall@10",
        "p95",
        "p50, two threads",
        cheaper,
        "p50, cold",
        "opened, cold",
    )
    return f"{machines_text(sizes)}\n\n{table(head, rows)}"


def grown_avx2(results: Row) -> str:
    """The same on an older processor, of documents of several collections."""
    return grown(results["avx2"])


def _search(found: Row) -> str:
    return f"{number(found['p50_ms'])} ms at {found['recall_at_10']:.3f}"


def machines(results: Row) -> str:
    """What more tokens take, if each machine has as many as the largest index whose default search finds enough."""
    largest = [size for size in results["sizes"] if size["search"]["recall_at_10"] >= ENOUGH][-1]
    share, p50 = largest["tokens"], largest["search"]["p50_ms"]
    rows = []
    for tokens in BEYOND:
        count = tokens / share
        rows.append(
            (
                power(tokens),
                f"{count:,.0f}",
                f"{largest['build']['stats']['bytes'] * count / 1e12:.2f} TB",
                f"{number(largest['build']['seconds'] * count / 3600)} h",
                f"{number(p50 * count / 1e3)} s",
                f"{number(HIT * 10 * count / 1e3)} kB",
            )
        )
    head = ("tokens", "machines", "indexes", "machine time of a build", "processor time of a query", "10 hits of each")
    return (
        f"{table(head, rows)}\n\nEach machine builds its own part in {number(largest['build']['seconds'])} s, and "
        f"answers in about {number(p50)} ms on one thread. A query waits for the slowest machine. Among so many that "
        f"is at least the 95th percentile, {number(largest['search']['p95_ms'])} ms. Every machine answers every "
        f"query, so all of them together answer as many as one: {number(2e3 / p50)} a second on two threads, if both "
        "run as fast as one. Twice the machines, with each part on two of them, answer twice as many."
    )


def agreement(results: Row) -> str:
    """Of how many queries a device and the CPU give the same."""
    found = results["agreement"]
    asked = [(name, f"{case['same']} of {case['queries']}") for name, case in found["cases"].items()]
    differ = found["files_that_differ"]
    files = f"These files of the two builds differ: {', '.join(differ)}." if differ else "All files are the same."
    return (
        f"{machine_text(found['machine'])} Device: {found['device']}, torch {found['versions']['torch']}. "
        f"{found['documents']:,} documents of {found['tokens']:,} tokens, evenly spaced over the collections, "
        f"{found['nbits']} bits, {found['centroids']:,} centroids, built on both. {files}\n\n"
        + table(("asked", "queries with the same ids and scores"), asked)
    )


def main() -> None:
    """Renders everything, or checks that it is rendered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    args = parser.parse_args()
    page = PAGE.read_text()
    others = {"agreement": "agreement.json", "avx2": "scale-avx2.json"}
    results = read_json(RESULTS / "scale.json") | {name: read_json(RESULTS / file) for name, file in others.items()}
    rendered = with_tables(page, results, (grown, grown_avx2, machines, agreement))
    if args.check and rendered != page:
        sys.exit(f"{PAGE.name} is not what benchmarks/results say; run python -m benchmarks.scale_page")
    if not args.check:
        PAGE.write_text(rendered)


if __name__ == "__main__":
    main()
