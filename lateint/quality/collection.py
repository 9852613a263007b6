"""Reads a text collection in BEIR's folder layout: documents, queries and relevance judgements.

======================================  ==============================================================
``corpus.jsonl`` or ``.jsonl.gz``       one object a line: ``_id``, ``text`` and, if any, ``title``
``queries.jsonl`` or ``.jsonl.gz``      one object a line: ``_id``, ``text``
``qrels/SPLIT.tsv``,                    a header line, then ``query-id``, ``corpus-id``, ``score``
``qrels.SPLIT.tsv`` or ``qrels.tsv``    separated by tabs; the score is an integer grade
======================================  ==============================================================
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements, each in the order of its file."""

    doc_ids: list[str]
    titles: list[str]  # "" where a document has none
    texts: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]  # query id -> document id -> grade

    @property
    def documents(self) -> list[str]:
        """Title and text of every document, joined by a space: what an encoder reads."""
        return [f"{title} {text}".strip() for title, text in zip(self.titles, self.texts, strict=True)]

    @property
    def judged(self) -> list[int]:
        """Positions in ``queries`` of those that have judgements."""
        return [position for position, query in enumerate(self.query_ids) if query in self.qrels]

    @classmethod
    def read(cls, folder: str | Path, split: str | None = None) -> Collection:
        """Reads a folder in BEIR's layout.

        Args:
            folder: holds corpus, queries and qrels as the module's table says.
            split: which judgements to read; None takes ``test`` where there is one, else ``qrels.tsv``.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: a line cannot be read, an id comes twice, or a judgement names an unknown query or document;
                the message begins with file and line.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder")
        corpus = _table(folder, "corpus.jsonl", ("_id", "text"))
        queries = _table(folder, "queries.jsonl", ("_id", "text"))
        return cls(
            doc_ids=list(corpus),
            titles=[row.get("title") or "" for row in corpus.values()],
            texts=[row["text"] for row in corpus.values()],
            query_ids=list(queries),
            queries=[row["text"] for row in queries.values()],
            qrels=_qrels(_qrels_file(folder, split), queries, corpus),
        )


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of place ("file, line n") and line, empty lines left out."""
    place = str(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                place = f"{path}, line {number}"
                if line.strip():
                    yield place, line.rstrip("\r\n")
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read after {place.removeprefix(f'{path}, ')}: {error}") from None


def json_object(place: str, line: str) -> dict[str, Any]:
    """The JSON object of a line of a file; messages begin with ``place``."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{place}: must be a JSON object, got {type(row).__name__}")
    return row


def _table(folder: Path, name: str, fields: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The objects of a JSON-lines file by their ``_id``."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} must hold {name} or {name}.gz, found neither")
    rows: dict[str, dict[str, Any]] = {}
    for place, line in lines(path):
        row = json_object(place, line)
        for field in fields:
            if not isinstance(row.get(field), str):
                raise ValueError(f"{place}: {field!r} must be a string, got {row.get(field)!r}")
        if row["_id"] in rows:
            raise ValueError(f"{place}: '_id' {row['_id']!r} comes a second time")
        rows[row["_id"]] = row
    if not rows:
        raise ValueError(f"{path}: must hold at least one line, found none")
    return rows


def _qrels_file(folder: Path, split: str | None) -> Path:
    names = [f"qrels/{split or 'test'}.tsv", f"qrels.{split or 'test'}.tsv", *([] if split else ["qrels.tsv"])]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} must hold one of {', '.join(names)}, found none")
    return path


def _qrels(path: Path, queries: dict[str, Any], corpus: dict[str, Any]) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for row, (place, line) in enumerate(lines(path)):
        fields = line.split("\t")
        if len(fields) != 3:
            raise ValueError(f"{place}: must have 3 fields separated by tabs, found {len(fields)}")
        query, document, grade = fields
        try:
            value = int(grade)
        except ValueError:
            if row == 0:  # the header
                continue
            raise ValueError(f"{place}: the score must be an integer, got {grade!r}") from None
        if query not in queries:
            raise ValueError(f"{place}: query {query!r} is not in the queries")
        if document not in corpus:
            raise ValueError(f"{place}: document {document!r} is not in the corpus")
        qrels.setdefault(query, {})[document] = value
    if not qrels:
        raise ValueError(f"{path}: must hold at least one judgement, found none")
    return qrels
