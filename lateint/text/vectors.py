"""Sparse vectors as users pass them: terms with weights, of documents and of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

FORMS = "a mapping of terms to weights, a pair (terms, weights) or a row of a sparse matrix"
LARGEST = 65504.0  # a weight of a document, which is kept as float16
LONGEST = 1000  # bytes of a term
LARGEST_QUERY = 1e9


class Vector(NamedTuple):
    """Terms, each once, and their weights, all above 0.

    Attributes:
        terms: strings, or numbers from 0, which stand for their digits.
        weights: ``[n]`` float64.
    """

    terms: list[str] | NDArray[np.int64]
    weights: NDArray[np.float64]


class Matrix(Sequence[tuple[NDArray[np.int64], NDArray[Any]]]):
    """The rows of a sparse matrix, as pairs of columns and weights; ``indptr``, ``indices`` and ``data`` as in CSR."""

    def __init__(self, indptr: NDArray[Any], indices: NDArray[Any], data: NDArray[Any]) -> None:
        self._indptr, self._indices, self._data = indptr.astype(np.int64), indices.astype(np.int64), data

    @classmethod
    def of(cls, given: Any) -> Matrix | None:
        """The rows of a sparse matrix of SciPy or torch; None for anything else."""
        if hasattr(given, "tocsr") and getattr(given, "ndim", 2) == 2:
            csr = given.tocsr()
            if not csr.has_canonical_format:
                csr = csr.copy()
                csr.sum_duplicates()
            return cls(csr.indptr, csr.indices, csr.data)
        if hasattr(given, "to_sparse") and given.ndim == 2:
            given = given.detach().cpu()
            if str(given.layout) == "torch.sparse_csr":
                return cls(given.crow_indices().numpy(), given.col_indices().numpy(), _numbers(given.values()))
            coo = (given if given.is_sparse else given.to_sparse()).coalesce()
            rows, columns = coo.indices().numpy()
            indptr = np.cumsum([0, *np.bincount(rows, minlength=len(given)).tolist()])
            return cls(indptr, columns, _numbers(coo.values()))
        return None

    def __len__(self) -> int:
        return len(self._indptr) - 1

    @overload
    def __getitem__(self, row: int) -> tuple[NDArray[np.int64], NDArray[Any]]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[NDArray[np.int64], NDArray[Any]]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        first, last = self._indptr[row % len(self) :][:2].tolist()
        return self._indices[first:last], self._data[first:last]


def read(given: Any, what: str, *, largest: float = LARGEST) -> Vector | None:
    """One vector in any of the forms; terms of weight 0 are left out; None for None.

    Args:
        what: names it in messages, such as ``"sparse of document 7"``.

    Raises:
        TypeError: it has none of the forms, or terms or weights of a wrong type.
        ValueError: a weight is negative, too large or not finite; or a term comes twice, or is too long.
    """
    if given is None:
        return None
    terms, weights = _parts(given, what)
    terms = _terms(terms, what)
    try:
        numbers = np.asarray(weights if isinstance(weights, np.ndarray) else list(weights), np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must have numbers as weights") from None
    if numbers.shape != (len(terms),):
        raise ValueError(f"{what} must have one weight for each term, got {numbers.shape} for {len(terms)} terms")
    if (wrong := np.flatnonzero(~((numbers >= 0) & (numbers <= largest)))).size:
        at = int(wrong[0])
        raise ValueError(f"{what} must have weights from 0 to {largest:g}, but that of {terms[at]!s} is {numbers[at]}")
    if (numbers == 0).any():
        there = np.flatnonzero(numbers)
        terms = terms[there] if isinstance(terms, np.ndarray) else [terms[i] for i in there.tolist()]
        numbers = numbers[there]
    return Vector(terms, numbers)


def encoded(terms: list[str] | NDArray[np.int64]) -> list[bytes]:
    """Terms in UTF-8."""
    return [str(term).encode() for term in (terms if isinstance(terms, list) else terms.tolist())]


def plain(vector: Vector) -> dict[str, float]:
    """As JSON has it."""
    return {term.decode(): float(weight) for term, weight in zip(encoded(vector.terms), vector.weights, strict=True)}


def _parts(given: Any, what: str) -> tuple[Any, Any]:
    """Terms and weights, whatever they are."""
    if isinstance(given, Mapping):
        return list(given), list(given.values())
    if isinstance(given, tuple) and len(given) == 2:
        return given
    rows = Matrix.of(given)
    if rows is not None and len(rows) == 1:
        return rows[0]
    if hasattr(given, "to_sparse") and given.ndim == 1:  # a vector of torch
        return _parts(given.unsqueeze(0), what)
    terms, values = getattr(given, "indices", None), getattr(given, "values", None)
    if rows is None and terms is not None and values is not None and not callable(terms) and not callable(values):
        return terms, values
    raise TypeError(f"{what} must be {FORMS}, or None, got {type(given).__name__}")


def _numbers(values: Any) -> NDArray[Any]:
    """Of a tensor; NumPy has no bfloat16."""
    numbers: NDArray[Any] = (values.float() if values.dtype.itemsize == 2 else values).numpy()
    return numbers


def _terms(given: Any, what: str) -> list[str] | NDArray[np.int64]:
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "iu":
        numbers = given.astype(np.int64)
        if len(numbers) and int(numbers.min()) < 0:
            raise ValueError(f"{what} must have terms from 0, got {int(numbers.min())}")
        if len(np.unique(numbers)) < len(numbers):
            raise ValueError(f"{what} must have each term once")
        return numbers
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must have a list of terms, got {type(given).__name__}")
    terms = [_term(term, what) for term in given]
    if len(set(terms)) < len(terms):
        raise ValueError(f"{what} must have each term once")
    return terms


def _term(term: Any, what: str) -> str:
    if isinstance(term, str):
        try:
            size = len(term.encode())
        except UnicodeEncodeError:
            raise ValueError(f"{what} must have terms that utf-8 can write, got {term!r}") from None
        if not 1 <= size <= LONGEST:
            raise ValueError(f"{what} must have terms of 1 to {LONGEST} bytes, got one of {size}")
        return term
    if isinstance(term, (bool, np.bool_)) or not isinstance(term, (int, np.integer)):
        raise TypeError(f"{what} must have strings or numbers from 0 as terms, got {type(term).__name__}")
    if term < 0:
        raise ValueError(f"{what} must have terms from 0, got {term}")
    return str(int(term))
