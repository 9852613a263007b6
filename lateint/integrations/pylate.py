"""An index of PyLate: ``pip install lateint pylate``.

>>> index = LateInt(index_folder="indexes", index_name="passages", override=True)  # doctest: +SKIP
>>> index.add_documents(documents_ids=ids, documents_embeddings=embeddings)  # doctest: +SKIP
>>> retrieve.ColBERT(index=index).retrieve(queries_embeddings=queries, k=10)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    from pylate.indexes.base import Base
    from pylate.rank import RerankResult
except ImportError:
    raise ImportError('pylate is not installed: pip install "lateint[pylate]"') from None

from lateint.index import Index


class LateInt(Base):  # type: ignore[misc]
    """Documents in an index of lateint, with the string ids that PyLate gives them.

    Args:
        index_folder, index_name: the index is the folder ``index_name`` in ``index_folder``.
        override: replace an index that is there, by the first documents that are added.
        nbits: bits a component, 1, 2, 4 or 8.
        device: see `lateint.Index.open`.
        build: for `lateint.Index.build`, such as ``ncentroids`` and ``max_ram``.
        search: for `lateint.Index.search`, such as ``nprobe``.
    """

    is_end_to_end_index = True

    def __init__(
        self,
        index_folder: str | os.PathLike[str] = "indexes",
        index_name: str = "lateint",
        override: bool = False,
        *,
        nbits: int = 4,
        device: Any = None,
        build: dict[str, Any] | None = None,
        search: dict[str, Any] | None = None,
    ) -> None:
        self.path = Path(index_folder) / index_name
        self.override, self.device, self.search = override, device, search or {}
        self.build = {"nbits": nbits, "device": device, **(build or {})}
        self.index: Index | None = None
        if not override and (self.path / "index.json").exists():
            self.index = Index.open(self.path, device=device)

    def __len__(self) -> int:
        return 0 if self.index is None else len(self.index)

    def add_documents(
        self, documents_ids: Sequence[str], documents_embeddings: Sequence[Any], batch_size: int = 2000, **kwargs: Any
    ) -> LateInt:
        """Adds documents, the first of which make the index; an id that is there is replaced."""
        ids, embeddings = [str(id) for id in documents_ids], list(documents_embeddings)
        if self.index is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.index = Index.build(embeddings, self.path, ids=ids, overwrite=self.override, **self.build)
        else:
            self.index.add(embeddings, ids=ids, on_duplicate="replace")
        return self

    def remove_documents(self, documents_ids: Sequence[str]) -> LateInt:
        """Removes documents.

        Raises:
            UnknownIdError: a KeyError that names an id that is not there.
        """
        self._built().delete([str(id) for id in documents_ids])
        return self

    def update_documents(
        self, documents_ids: Sequence[str], documents_embeddings: Sequence[Any], **kwargs: Any
    ) -> LateInt:
        """Replaces documents.

        Raises:
            UnknownIdError: as `remove_documents`.
        """
        self._built().update([str(id) for id in documents_ids], list(documents_embeddings))
        return self

    def __call__(
        self,
        queries_embeddings: Any,
        k: int = 10,
        subset: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> list[list[RerankResult]]:
        """The best ``k`` documents of each query.

        Args:
            subset: ids to choose from, for all queries or a list of them for each; ids that are not there are passed
                over.
        """
        index, queries = self._built(), list(queries_embeddings)
        if subset is not None:
            each = [subset] * len(queries) if not subset or isinstance(subset[0], (str, int)) else list(subset)
            subset = [[id for id in map(str, ids) if id in index] for ids in each]
        found = index.search(queries, k, subset=subset, **self.search)
        return [[RerankResult(id=id, score=score) for id, score in hits] for hits in found]

    def get_documents_embeddings(self, documents_ids: Sequence[Sequence[str]]) -> list[list[Any]]:
        """The tokens ``[Ld, dim]`` of documents as their codes remember them, for each list of ids."""
        index = self._built()
        return [[np.asarray(index.reconstruct(str(id))) for id in ids] for ids in documents_ids]

    def clear(self) -> LateInt:
        """Removes the index with its folder."""
        self.index = None
        if (self.path / "index.json").exists():
            shutil.rmtree(self.path)
        return self

    def _built(self) -> Index:
        if self.index is None:
            raise ValueError("the index has no documents yet: call add_documents first")
        return self.index
