"""The keyword arguments of searches, for signatures that say what comes back for one query and for many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class RerankSettings(TypedDict, total=False):
    """Those of `lateint.Index.rerank`, which says what they mean."""

    filter: Any
    params: Mapping[str, Any] | None
    mask: Any
    threads: int | None


class SearchSettings(RerankSettings, total=False):
    """Those of `lateint.Index.search`, which says what they mean."""

    text: Any
    sparse: Any
    alpha: float | None
    fusion: str | None
    rerank: int | None
    nprobe: int | None
    candidates: int | None
    cells: int | None
    exhaustive: bool
    recall: float | None
    subset: Any
