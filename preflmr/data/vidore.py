"""Retrieval of pages in ViDoRe's layout (Faysse et al., arXiv 2407.01449): BEIR's three tables, with pictures inside.

=====================  ==============================================================================
``corpus/SPLIT-*``     ``corpus-id``, ``image``
``queries/SPLIT-*``    ``query-id``, ``query``
``qrels/SPLIT-*``      ``query-id``, ``corpus-id``, ``score``; pages above 0 are positives
=====================  ==============================================================================

The tables are parquet files in a folder, a copy of what the hub has, or configurations of a data set on the hub. Other
columns, such as words of a page, are not read: models of pages read its picture.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from preflmr.data import rows
from preflmr.data.ids import Positions
from preflmr.data.images import Images, MissingImage
from preflmr.data.renamed import Renamed
from preflmr.data.rows import Table

CORPUS, QUERIES, QRELS = "corpus", "queries", "qrels"


def is_vidore(source: str | os.PathLike[str]) -> bool:
    """Whether a folder holds pages, or a name on the hub says that it does."""
    folder = Path(source)
    if folder.is_dir():
        return all((folder / name).is_dir() for name in (CORPUS, QUERIES, QRELS))
    return str(source).startswith(("vidore/", "mteb/vidore")) and str(source).count("/") == 1


class Place:
    """Where questions, pages and their pictures are.

    Args:
        source: a folder, or a name on the hub.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        self.source = source
        self._corpus: tuple[str, Table] | None = None

    def questions(self, split: str) -> Table:
        """In M2KR's columns: those queries that are judged."""
        judged: dict[str, list[str]] = {}
        for row in self._table(QRELS, split).rows(("query-id", "corpus-id", "score"), ()):
            pages = judged.setdefault(str(row.columns["query-id"]), [])
            if float(row.columns["score"]) > 0:
                pages.append(str(row.columns["corpus-id"]))
        return Renamed(self._table(QUERIES, split), ("query-id", "query"), partial(_question, judged))

    def passages(self, split: str) -> Table:
        """In M2KR's columns: pages without words."""
        return Renamed(self._pages(split), ("corpus-id",), _page)

    def images(self, split: str) -> Images:
        """The pictures of pages."""
        return PageImages(self._pages(split))

    def _pages(self, split: str) -> Table:
        if self._corpus is None or self._corpus[0] != split:
            self._corpus = split, self._table(CORPUS, split)
        return self._corpus[1]

    def _table(self, name: str, split: str) -> Table:
        folder = Path(self.source)
        if not folder.is_dir():
            return rows.on_hub(str(self.source), name, split)
        table = rows.find(folder / name, split)
        if table is None:
            raise FileNotFoundError(f"{folder / name} must hold {split}.parquet or {split}-*.parquet, found none")
        return table


class PageImages(Images):
    """Pictures that a table holds in its column ``image``, by ``corpus-id``.

    Args:
        table: of pages.
    """

    def __init__(self, table: Table) -> None:
        self.table, self.roots = table, [Path(table.name)]
        found = [(str(row.columns["corpus-id"]), row.key) for row in table.rows(("corpus-id",), ())]
        self._keys = [key for _, key in found]
        self._positions = Positions([id for id, _ in found])

    def __contains__(self, path: str) -> bool:
        return path in self._positions

    def read(self, path: str) -> bytes:
        """The bytes of the picture.

        Raises:
            MissingImage: there is no such page, or it has none.
        """
        kept = self.table.at(self._keys[self._positions[path]], ("image",)) if path in self else {}
        image = kept.get("image") or {}
        if image.get("bytes") is None:
            raise MissingImage(f"image {path!r} is missing: it is not in {self}")
        return bytes(image["bytes"])

    def __reduce__(self) -> Any:
        return PageImages, (self.table,)


def _question(judged: Mapping[str, list[str]], row: Mapping[str, Any]) -> dict[str, Any] | None:
    id = str(row["query-id"])
    if id not in judged:
        return None
    return {"question_id": id, "question": row["query"], "pos_item_ids": judged[id]}


def _page(row: Mapping[str, Any]) -> dict[str, Any]:
    id = str(row["corpus-id"])
    return {"passage_id": id, "passage_content": "", "img_path": id}
