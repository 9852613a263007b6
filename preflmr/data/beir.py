"""A folder in BEIR's layout as a data set without pictures.

======================================  ==============================================================
``corpus.jsonl`` or ``.jsonl.gz``       passages: ``_id``, ``text`` and, if any, ``title``
``queries.jsonl`` or ``.jsonl.gz``      questions: ``_id``, ``text``
``qrels/SPLIT.tsv``,                    a header line, then ``query-id``, ``corpus-id`` and an integer
``qrels.SPLIT.tsv`` or ``qrels.tsv``    grade, separated by tabs; passages above 0 are positives
======================================  ==============================================================
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preflmr.data import passages, rows
from preflmr.data.examples import Example
from preflmr.data.passages import Passages
from preflmr.data.rows import Column


def is_beir(folder: Path) -> bool:
    """Whether a folder holds a corpus."""
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


def read_passages(folder: Path, strict: bool, dropped: Counter[str]) -> Passages:
    """The corpus."""
    return passages.read(rows.at(folder, "corpus"), strict, dropped)


def read_examples(
    folder: Path, names: Sequence[str], corpus: str, known: Mapping[str, int], limit: int | None, seed: int | None
) -> Sequence[Example]:
    """The questions that a split judges, in the order of their file.

    Args:
        names: what the split may be called.
        corpus: what `Example.corpus` says.
        known: the passages, by id.

    Raises:
        FileNotFoundError: queries or judgements are missing.
        ValueError: a line cannot be read, or names an unknown query or passage.
    """
    file = _qrels_file(folder, names)
    judged = _qrels(file, known)
    table = rows.at(folder, "queries")
    keys: dict[str, int] = {}
    for row in table.rows(("_id", "text"), ()):
        id, text = row.columns["_id"], row.columns["text"]
        if not isinstance(id, str) or not isinstance(text, str):
            raise ValueError(f"{row.place}: '_id' and 'text' must be strings, got {id!r} and {text!r}")
        if id in keys:
            raise ValueError(f"{row.place}: '_id' {id!r} comes a second time")
        if id in judged:
            keys[id] = row.key
    unknown = next((id for id in judged if id not in keys), None)
    if unknown is not None:
        raise ValueError(f"{file}: query {unknown!r} is not in {table.name}")
    every = array("q", keys.values())
    kept = rows.kept(len(every), limit, seed)
    found = np.frombuffer(every, np.int64)
    return Column(table, found if kept is None else found[kept], ("_id", "text"), partial(_example, judged, corpus))


def _example(judged: Mapping[str, tuple[str, ...]], corpus: str, row: Mapping[str, Any]) -> Example:
    return Example(row["_id"], row["text"], None, (), judged[row["_id"]], (), corpus)


def _qrels_file(folder: Path, names: Sequence[str]) -> Path:
    files = [file for name in names for file in (f"qrels/{name}.tsv", f"qrels.{name}.tsv")]
    files += ["qrels.tsv"] if "test" in names else []
    found = next((folder / file for file in files if (folder / file).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{folder} must hold one of {', '.join(files)}, found none")
    return found


def _qrels(path: Path, known: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    judged: dict[str, tuple[str, ...]] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place, fields = f"{path}, line {number}", line.rstrip("\r\n").split("\t")
            if len(fields) != 3:
                raise ValueError(f"{place}: must have 3 fields separated by tabs, found {len(fields)}")
            query, document, grade = fields
            if number == 1 and not grade.lstrip("-").isdecimal():  # the header
                continue
            if not grade.lstrip("-").isdecimal():
                raise ValueError(f"{place}: the score must be an integer, got {grade!r}")
            if document not in known:
                raise ValueError(f"{place}: passage {document!r} is not among the {len(known):,} passages")
            judged[query] = judged.get(query, ()) + ((document,) if int(grade) > 0 else ())
    if not judged:
        raise ValueError(f"{path}: must hold at least one judgement, found none")
    return judged
