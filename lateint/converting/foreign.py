"""What a folder of another library holds, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
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

    def given(self, values: Any, name: str) -> Any:
        """What `lateint.Index.build` takes for ids, texts or metadata, whichever ``name`` is.

        Args:
            values: as users pass them: None for what is here, False for nothing, a list in the order of documents, a
                mapping from their `numbers`, or what else `build` takes.

        Raises:
            TypeError, ValueError: there are too many or too few; the message names the argument.
        """
        if values is False and name != "ids":
            return None
        if values is None:
            return self.numbers if name == "ids" and self.ids is None else getattr(self, name)
        if isinstance(values, Mapping):
            missing = next((number for number in self.numbers.tolist() if number not in values), None)
            if missing is not None:
                raise ValueError(f"{name} must have every document, but {missing} is missing")
            return [values[number] for number in self.numbers.tolist()]
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise TypeError(f"{name} must be a list or a mapping, got {type(values).__name__}")
        if isinstance(values, Sized) and len(values) != len(self.numbers):
            raise ValueError(
                f"{name} must have one for each of the {len(self.numbers):,} documents, got {len(values):,}"
            )
        return values
