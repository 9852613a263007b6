"""Scores of documents as codes would give them back, for training with the codec in the loop."""

from collections.abc import Callable
from functools import wraps
from typing import Any


def coded(score: Callable[..., Any], coding: Callable[[Any], Any] | None) -> Callable[..., Any]:
    """``score(queries, documents, ...)`` of ``coding(documents)``; itself without a `lateint_kernels.coding.Coding`."""
    if coding is None:
        return score

    @wraps(score)
    def of_codes(queries: Any, documents: Any, *rest: Any, **named: Any) -> Any:
        return score(queries, coding(documents), *rest, **named)

    return of_codes
