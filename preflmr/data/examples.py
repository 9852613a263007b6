"""The questions of a data set: rows of a table, made when they are asked for."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from preflmr.data import rows
from preflmr.data.ids import Digests, repeats
from preflmr.data.passages import refuse
from preflmr.data.rows import Column, Table

NEEDED = ("question_id", "question")
KNOWN = ("pos_item_ids", "instruction", "img_path", "answers", "gold_answer")


@dataclass(frozen=True)
class Example:
    """A question, with its pictures, and the passages that answer it.

    Attributes:
        instruction: the row's own; None where it has none.
        images: paths, for `preflmr.data.images.Images`; empty where the row has no picture.
        answers: strings, one of which a passage must contain to count for pseudo recall.
        corpus: names the passages that its ids are about; negatives may come from there.
    """

    question_id: str
    question: str
    instruction: str | None
    images: tuple[str, ...]
    positive_ids: tuple[str, ...]
    answers: tuple[str, ...]
    corpus: str


def read(
    table: Table,
    corpus: str,
    positions: Mapping[str, int],
    limit: int | None,
    seed: int | None,
    strict: bool,
    dropped: Counter[str],
) -> Sequence[Example]:
    """The questions of a table, whose mistakes are refused or counted.

    Args:
        corpus: what `Example.corpus` says.
        positions: of the passages by id.
        limit, seed, strict: see `preflmr.data.m2kr.load`.
        dropped: counts what is let pass.

    Raises:
        ValueError: columns are missing, a value has the wrong type, or as ``strict`` says; with file and row.
    """
    keys, digests = array("q"), Digests()
    for row in table.rows(NEEDED, KNOWN, limit, seed):
        if "pos_item_ids" not in row.columns and "answers" not in row.columns:
            found = ", ".join(row.columns)
            raise ValueError(f"{row.place}: must have the columns pos_item_ids or answers, found {found}")
        example = made(row.columns, corpus=corpus, place=row.place)
        who = f"question {example.question_id!r}"
        if not example.positive_ids and not example.answers:
            refuse(strict, dropped, "questions without answer", f"{row.place}: {who} has no positives or answers")
        for id in example.positive_ids:
            if id not in positions:
                message = f"{row.place}: positive {id!r} of {who} is not among the {len(positions):,} passages"
                refuse(strict, dropped, "positives that are no passage", message)
        keys.append(row.key)
        digests.add(example.question_id)
    if not keys:
        raise ValueError(f"{table.name}: must hold at least one question, found none")
    found_at = rows.compact(keys)
    for position in repeats(digests.ascending()).tolist():
        key = int(found_at[position])
        message = f"{table.place(key)}: question {table.at(key, NEEDED)['question_id']!r} comes twice" if strict else ""
        refuse(strict, dropped, "questions with an id that came before", message)
    value = partial(made, corpus=corpus, positions=None if strict else positions)
    return Column(table, found_at, (*NEEDED, *KNOWN), value)


def made(
    row: Mapping[str, Any], *, corpus: str, positions: Mapping[str, int] | None = None, place: str = "row"
) -> Example:
    """An example of a row; positives that are not among ``positions``, if they are given, are left out.

    Raises:
        ValueError: a value has the wrong type; the message begins with ``place``.
    """
    positives = [_id(one, "pos_item_ids", place) for one in _list(row, "pos_item_ids", place)]
    answers = _strings(row, "answers", place) or _strings(row, "gold_answer", place)
    return Example(
        _id(row["question_id"], "question_id", place),
        "".join(_strings(row, "question", place)),
        "".join(_strings(row, "instruction", place)).strip() or None,
        tuple(path for path in _strings(row, "img_path", place) if path),
        tuple(id for id in positives if positions is None or id in positions),
        tuple(answers),
        corpus,
    )


def _id(value: Any, column: str, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{place}: {column!r} must hold strings or integers, got {value!r}")
    return str(value)


def _list(row: Mapping[str, Any], column: str, place: str) -> list[Any]:
    value = row.get(column)
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{place}: {column!r} must be a list, got {value!r}")
    return list(value)


def _strings(row: Mapping[str, Any], column: str, place: str) -> list[str]:
    """A column that is a string, a list of strings, or null, as a list."""
    value = row.get(column)
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{place}: {column!r} must hold strings, got {value!r}")
    return values
