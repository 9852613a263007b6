"""What a folder of another library holds, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.converting.compressed import CompressedDocuments


@dataclass(frozen=True)
class Foreign:
    """The documents that are there, deleted ones left out.

    Attributes:
        documents: their tokens.
        numbers: ``[n]``, what the other library calls each.
        ids: names that were stored besides; None: there are none.
        texts: of each document; None: there are none.
        metadata: of each document; None: there is none.
    """

    documents: CompressedDocuments
    numbers: NDArray[np.int64]
    ids: list[str] | None = None
    texts: list[str] | None = None
    metadata: list[dict[str, Any]] | None = None


def aligned(values: Any, name: str, numbers: NDArray[np.int64]) -> list[Any]:
    """One of ``values`` for each document: they are a sequence in order, or a mapping from the numbers there.

    Raises:
        TypeError, ValueError: there are too many or too few; the message names the argument.
    """
    if isinstance(values, Mapping):
        missing = [number for number in numbers.tolist() if number not in values]
        if missing:
            raise ValueError(f"{name} must have every document, but {missing[0]} is missing")
        return [values[number] for number in numbers.tolist()]
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)):
        raise TypeError(f"{name} must be a list or a mapping, got {type(values).__name__}")
    if len(values) != len(numbers):
        raise ValueError(f"{name} must have one for each of the {len(numbers):,} documents, got {len(values):,}")
    return list(values)
