"""The paper's Tables 2 to 7 and 10 with what was measured beside what was printed, from a folder of evaluations.

The tables are data, in ``tables.json``. A row takes the numbers of the evaluations whose run has one of the row's
names, such as ``table2-row05``; `run_names` lists them. What was not measured stays empty.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from preflmr.evaluation.measures import average_ranks
from preflmr.evaluation.results import write_json

RANK = "average rank"


@dataclass(frozen=True)
class Cell:
    """A number of the paper, in percent (or a mean rank), beside the one measured; None where there is none."""

    paper: float | str | None
    measured: float | None

    @property
    def difference(self) -> float | None:
        if self.measured is None or not isinstance(self.paper, (int, float)):
            return None
        return self.measured - self.paper

    def __str__(self) -> str:
        if self.paper is None and self.measured is None:
            return ""
        paper = "" if self.paper is None else str(self.paper)
        measured = "" if self.measured is None else f"{self.measured:.1f}"
        difference = "" if self.difference is None else f"{self.difference:+.1f}"
        return f"{paper} / {measured} / {difference}".strip()


@dataclass(frozen=True)
class Filled:
    """A table of the paper with measured numbers.

    Attributes:
        rows: name -> a cell for each column; where the paper has average ranks, the last column holds them.
        notes: what to know when reading it.
    """

    table: str
    title: str
    columns: list[str]
    rows: dict[str, list[Cell]]
    notes: list[str]


def tables() -> list[dict[str, Any]]:
    """The paper's tables as ``tables.json`` has them, and the numbers published with the checkpoints."""
    text = resources.files("preflmr.evaluation").joinpath("tables.json").read_text(encoding="utf-8")
    loaded: list[dict[str, Any]] = json.loads(text)
    return loaded


def run_names() -> dict[str, list[str]]:
    """The runs that fill rows, by table and row: ``{"2": ["table2-row01", ...], ...}``."""
    return {table["table"]: [run for row in table["rows"] for run in row["runs"]] for table in tables()}


def read(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The summaries of the evaluations in a folder and the folders in it, sorted by file name.

    Raises:
        FileNotFoundError: there is no such folder, or no evaluation in it.
        ValueError: a file cannot be read, or two evaluate the same run, task and split (passages and answers apart).
    """
    folder = Path(folder)
    paths = sorted(folder.rglob("*.summary.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} must hold evaluations (*.summary.json), found none")
    seen: dict[tuple[str, str, str, str], Path] = {}
    summaries = []
    for path in paths:
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            key = (summary["run"], summary["task"], summary["split"], summary.get("kind", ""))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the summary of an evaluation: {error!r}") from None
        if key in seen:
            raise ValueError(f"run {key[0]!r} was evaluated twice on {key[1]} {key[2]}: {seen[key]} and {path}")
        seen[key] = path
        summaries.append(summary)
    return summaries


def fill(table: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> Filled:
    """Puts what was measured beside the paper's numbers: on the test split, or the one that the table names.

    The average rank of a measured row is its rank among the paper's rows, each of which counts with its measured
    numbers where all of them were measured, and else with the paper's.
    """
    by_run: dict[tuple[str, str], list[Mapping[str, Any]]] = {}  # what it found, and what it answered
    for summary in summaries:
        if summary["split"] == table.get("split", "test"):
            by_run.setdefault((summary["run"], summary["task"]), []).append(summary)
    notes: list[str] = []
    rows: dict[str, list[Cell]] = {}
    for row in table["rows"]:
        cells = []
        for column, paper in zip(table["columns"], row["values"], strict=True):
            found = [summary for run in row["runs"] for summary in by_run.get((run, column["task"]), ())]
            found = [summary for summary in found if column["measure"] in summary["measures"]]
            cells.append(Cell(paper, 100 * found[0]["measures"][column["measure"]] if found else None))
            if found and (note := _caution(found[0])):
                notes.append(note)
        rows[row["name"]] = cells
    columns = [f"{column['name']} {_short(column['measure'])}".strip() for column in table["columns"]]
    if any(RANK in row for row in table["rows"]):
        notes.append(_add_ranks(table, rows))
        columns.append("A.R.")
    notes += table.get("notes", ())
    return Filled(table["table"], table["title"], columns, rows, list(dict.fromkeys(notes)))


def markdown(filled: Filled) -> str:
    """The table in Markdown; every cell holds ``paper / measured / difference``."""
    name = f"Table {filled.table}" if filled.table.isdecimal() else filled.table.capitalize()
    lines = [f"## {name}. {filled.title}", "", "Paper / measured / difference, in percent.", ""]
    lines += _grid(["", *filled.columns], [[row, *map(str, cells)] for row, cells in filled.rows.items()])
    return "\n".join([*lines, *(f"\n{note}" for note in filled.notes)]) + "\n"


def own(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Every evaluation on a line, in Markdown: for runs that are not in the paper."""
    lines = []
    for summary in summaries:
        measures, measure = summary["measures"], summary.get("measure")
        exact = summary.get("exact", {}).get(measure)
        lines.append(
            [
                summary["run"], summary["task"], summary["split"], f"{summary.get('questions', 0):,}",
                f"{summary.get('passages', 0):,}", measure or "", _percent(measures.get(measure)),
                _percent(measures.get("Recall@5")), _percent(measures.get("Pseudo Recall@5")),
                _percent(measures.get("nDCG@10")), _percent(exact),
                "" if exact is None else f"{100 * (measures[measure] - exact):+.1f}",
            ]
        )  # fmt: skip
    head = ["run", "task", "split", "questions", "passages", "measure", "value", "R@5", "PR@5", "nDCG@10"]
    return "\n".join(_grid([*head, "exact", "index - exact"], lines)) + "\n"


def report(
    folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None, only: Sequence[str] | None = None
) -> str:
    """All tables in Markdown, first that of the evaluations themselves.

    Args:
        folder: see `read`.
        output: a folder to write ``report.md``, ``report.json`` and ``report.csv`` to.
        only: numbers of the paper's tables; None: all of them, and the checkpoints' if one of these was measured.

    Raises:
        FileNotFoundError, ValueError: as `read`, or ``only`` names another table.
    """
    summaries = read(folder)
    known = {table["table"]: table for table in tables()}
    if unknown := [name for name in only or () if str(name) not in known]:
        raise ValueError(f"only must name tables, some of {', '.join(known)}, got {unknown[0]!r}")
    filled = [fill(known[str(name)], summaries) for name in only or known]
    if only is None:
        filled = [table for table in filled if table.table.isdecimal() or _measured(table)]
    text = "\n".join([f"## Evaluations\n\n{own(summaries)}", *map(markdown, filled)])
    if output is not None:
        target = Path(output)
        target.mkdir(parents=True, exist_ok=True)
        (target / "report.md").write_text(text, encoding="utf-8")
        (target / "report.csv").write_text(as_csv(filled), encoding="utf-8")
        write_json(target / "report.json", [as_json(table) for table in filled])
    return text


def as_json(filled: Filled) -> dict[str, Any]:
    """The table as plain objects, a number a cell and kind."""
    rows = [
        {
            "name": name,
            "cells": {
                column: {"paper": cell.paper, "measured": cell.measured, "difference": cell.difference}
                for column, cell in zip(filled.columns, cells, strict=True)
            },
        }
        for name, cells in filled.rows.items()
    ]
    return {"table": filled.table, "title": filled.title, "rows": rows, "notes": filled.notes}


def as_csv(filled: Sequence[Filled]) -> str:
    """A line for each cell: table, row, column, paper, measured, difference."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "row", "column", "paper", "measured", "difference"])
    for table in filled:
        for name, cells in table.rows.items():
            for column, cell in zip(table.columns, cells, strict=True):
                numbers = [None if value is None else f"{value:.2f}" for value in (cell.measured, cell.difference)]
                writer.writerow([table.table, name, column, cell.paper, *numbers])
    return text.getvalue()


def _add_ranks(table: Mapping[str, Any], rows: dict[str, list[Cell]]) -> str:
    """Adds the column of average ranks, and says how far the printed ones are from the printed numbers."""
    ranked = [row for row in table["rows"] if RANK in row]
    complete = {row["name"]: all(cell.measured is not None for cell in rows[row["name"]]) for row in ranked}
    measured = average_ranks(
        {
            name: [cell.measured if whole else cell.paper for cell in rows[name]]  # type: ignore[misc]
            for name, whole in complete.items()
        }
    )
    printed = average_ranks({row["name"]: row["values"] for row in ranked})
    off = max(abs(row[RANK] - (printed[row["name"]] or 0.0)) for row in ranked)
    for row in table["rows"]:
        name = row["name"]
        rows[name] = [*rows[name], Cell(row.get(RANK), measured[name] if complete.get(name) else None)]
    first, last = (row["name"].split()[0] for row in (ranked[0], ranked[-1]))
    return (
        f"A.R.: mean rank among rows {first} to {last}, ties averaged; rows not fully measured count with the "
        f"paper's numbers. Computed so from the paper's numbers, the printed A.R. come out within {off:.2f}."
    )


def _caution(summary: Mapping[str, Any]) -> str:
    """Why a measured number is not quite what the paper's stands for."""
    settings, place = summary.get("settings", {}), f"{summary['run']} on {summary['task']}"
    if settings.get("limit"):
        return f"{place}: only the first {settings['limit']:,} questions."
    if summary.get("left out"):
        return f"{place}: {summary['left out']:,} questions left out for missing pictures."
    if summary.get("missing images"):
        return f"{place}: {summary['missing images']:,} missing pictures shown as black."
    return ""


def _measured(table: Filled) -> bool:
    return any(cell.measured is not None for cells in table.rows.values() for cell in cells)


def _short(measure: str) -> str:
    if measure.startswith("Pseudo Recall@"):
        return f"PR@{measure.rpartition('@')[2]}"
    return f"R@{measure.rpartition('@')[2]}" if measure.startswith("Recall@") else ""


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)]
