"""How pages write numbers and tables."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.embeddings import write_json
from benchmarks.rivals.run import machine

Row = dict[str, Any]
MARKS = re.compile(r"<!-- measured: (\w+) -->\n.*?<!-- /measured -->", re.DOTALL)


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


def machine_text(machine: Row) -> str:
    """Where and on what code it was measured, as a sentence."""
    state = " with uncommitted changes" if machine["dirty"] else ""
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    isa = f" with {machine['isa']}" if "isa" in machine else ""  # older results do not say
    return (
        f"{machine['cpu']}{isa}, {machine['cores']} cores, {memory}, {machine['system']}, Python {machine['python']}, "
        f"numpy {machine['numpy']}; commit `{machine['commit'][:12]}`{state}, {machine['date']}."
    )


def machines_text(rows: Sequence[Row]) -> str:
    """`machine_text` of the last row, and the commits of those that were measured on other code."""
    last = rows[-1]["machine"]
    others: dict[str, list[str]] = {}
    for row in rows:
        commit, dirty = row["machine"]["commit"], row["machine"]["dirty"]
        if (commit, dirty) != (last["commit"], last["dirty"]):
            state = " with uncommitted changes" if dirty else ""
            others.setdefault(f"`{commit[:12]}`{state}", []).append(power(row["tokens"]))
    return machine_text(last) + "".join(f" Commit {code}: {', '.join(sizes)}." for code, sizes in others.items())


def power(tokens: float) -> str:
    """1e9 and not 1e+09."""
    mantissa, exponent = f"{tokens:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def options(
    parser: argparse.ArgumentParser, result: Path, marks: tuple[str, str], page: Callable[[Any], str]
) -> argparse.Namespace | None:
    """Options of a benchmark that measures ``--data`` and writes ``--out``, or has its table in a page.

    With ``--page`` this writes what ``result`` says between the marks of that page, and returns None.
    """
    parser.add_argument("--data", type=Path, help="folder made by benchmarks.embed")
    parser.add_argument("--out", type=Path, help="the JSON to write")
    parser.add_argument("--page", type=Path, help="write the table into this page, and nothing else")
    args = parser.parse_args()
    if args.page:
        between(args.page, marks, page(json.loads(result.read_text())))
        return None
    if args.data is None or args.out is None:
        parser.error("--data and --out are needed")
    return args


def command(
    description: str | None,
    result: Path,
    marks: tuple[str, str],
    page: Callable[[Any], str],
    measure: Callable[[Path], list[Row]],
) -> None:
    """A benchmark with no options but these `options`, whose results are the machine and the rows of ``measure``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    args = options(parser, result, marks, page)
    if args is not None:
        here = machine(sorted(os.sched_getaffinity(0)))
        write_json(args.out, {"machine": here, "rows": measure(args.data)})


def between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Writes ``text`` between two marks of a page, which has each of them once.

    Raises:
        ValueError: it has not.
    """
    known = page.read_text()
    if any(known.count(mark) != 1 for mark in marks):
        raise ValueError(f"{page} must contain {marks[0]} and {marks[1]} once each")
    before, rest = known.split(marks[0])
    after = rest.split(marks[1])[1]
    page.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}")


def with_tables(page: str, result: Row, tables: Sequence[Callable[[Row], str]]) -> str:
    """The page with everything between its marks written anew; every table must stand in it once."""
    makers = {make.__name__: make for make in tables}
    names = MARKS.findall(page)
    if sorted(names) != sorted(makers):
        raise ValueError(f"the page must hold each of {', '.join(sorted(makers))} once, got {', '.join(sorted(names))}")
    return MARKS.sub(lambda m: f"<!-- measured: {m[1]} -->\n{makers[m[1]](result)}\n<!-- /measured -->", page)
