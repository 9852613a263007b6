"""Tokens that PLAID's residual codec compressed, as `Documents`: ``x = centroids[code] + weights[bucket]``.

ColBERT, fast-plaid and xtr-warp-rs have it in common (Santhanam et al., "PLAID", arXiv 2205.09707). A bucket has
``nbits`` bits, the least significant one first; the buckets of a token fill its bytes from the most significant bit
on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.indexing.documents import LARGEST_DIM
from lateint.indexing.pilot import spread

NBITS = (1, 2, 4, 8)
MOST_CENTROIDS = 1 << 31
LARGEST = 1e15  # squares of components add up in float32


@dataclass(frozen=True)
class ResidualCodec:
    """How tokens are decompressed.

    Attributes:
        centroids: ``[K, dim]`` float32.
        table: ``[256, 8 / nbits]`` float32, what the components of a byte add to a centroid.
        unit: whether tokens are brought to length 1 afterwards.
    """

    centroids: NDArray[np.float32]
    table: NDArray[np.float32]
    unit: bool

    @classmethod
    def of(
        cls, centroids: NDArray[Any], weights: NDArray[Any], nbits: Any, folder: Path, *, unit: bool
    ) -> ResidualCodec:
        """The codec of ``centroids [K, dim]`` and ``weights [2^nbits]`` that are stored in ``folder``.

        Raises:
            ValueError: they do not go together.
        """
        if isinstance(nbits, bool) or nbits not in NBITS:
            raise ValueError(f"{folder}: nbits must be one of {', '.join(map(str, NBITS))}, got {str(nbits)[:50]}")
        count, dim = centroids.shape
        if not 1 <= dim <= LARGEST_DIM or dim * nbits % 8 or not 1 <= count <= MOST_CENTROIDS:
            raise ValueError(f"{folder}: centroids must be [K, dim] with whole bytes of {nbits} bits, got {count, dim}")
        if weights.shape != (1 << nbits,):
            raise ValueError(f"{folder}: there must be {1 << nbits} bucket weights, got {weights.shape}")
        rows, levels = centroids.astype(np.float32), weights.astype(np.float32)
        if not max(np.abs(rows).max(), np.abs(levels).max()) <= LARGEST:  # nor if one is not a number
            raise ValueError(f"{folder}: centroids and bucket weights must be numbers up to {LARGEST:g} in size")
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
        buckets = bits.reshape(256, 8 // nbits, nbits) @ (1 << np.arange(nbits))
        return cls(rows, levels[buckets], unit)

    @property
    def dim(self) -> int:
        return int(self.centroids.shape[1])

    @property
    def width(self) -> int:
        """Bytes of a token's residual."""
        return self.dim // int(self.table.shape[1])

    def decode(self, codes: NDArray[Any], residuals: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Tokens ``[n, dim]`` of their centroids ``[n]`` and residuals ``[n, width]``."""
        tokens = self.table[residuals].reshape(len(codes), self.dim)
        tokens += self.centroids[codes]
        if self.unit:
            norms = np.linalg.norm(tokens, axis=1, keepdims=True)
            tokens /= np.maximum(norms, 1e-12)
        return tokens


@dataclass(frozen=True)
class Part:
    """Rows as they are stored: ``codes [n]`` and ``residuals [n, width]``, in the file ``path``."""

    codes: NDArray[Any]
    residuals: NDArray[np.uint8]
    path: Path

    def checked(self, codec: ResidualCodec) -> Part:
        """This part, if its arrays go together.

        Raises:
            ValueError: they do not.
        """
        if self.residuals.shape != (len(self.codes), codec.width):
            raise ValueError(
                f"{self.path}: {len(self.codes):,} tokens must have residuals of {codec.width} bytes each, "
                f"got shape {self.residuals.shape}"
            )
        return self


class CompressedDocuments:
    """`lateint.indexing.documents.Documents`, each a run of rows; they are decompressed as they are asked for.

    Args:
        codec: of all parts.
        parts: rows, one part after another.
        starts: ``[n]``, the row that each document begins with.
        lengths: ``[n]``, how many it has.
    """

    def __init__(
        self,
        codec: ResidualCodec,
        parts: Sequence[Part],
        starts: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> None:
        self.codec, self.starts, self.lengths, self.dim = codec, starts, lengths, codec.dim
        self.parts = [part.checked(codec) for part in parts]
        self._first = np.cumsum([0, *(len(part.codes) for part in parts)])
        self._offsets = np.concatenate([[0], np.cumsum(lengths)])

    def chunks(self, most: int) -> Iterator[NDArray[np.float32]]:
        """All tokens in order, ``[at most `most`, dim]`` at a time."""
        total = int(self._offsets[-1])
        return (self._at(np.arange(start, min(start + most, total))) for start in range(0, total, most))

    def pilot(self, most: int) -> NDArray[np.float32]:
        """``most`` tokens spread over all documents."""
        return self._at(spread(int(self._offsets[-1]), most))

    def _at(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Tokens of ascending ``numbers``."""
        document = np.searchsorted(self._offsets, numbers, side="right") - 1
        rows = self.starts[document] + numbers - self._offsets[document]
        tokens = np.empty((len(numbers), self.dim), np.float32)
        part_of = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(part_of):
            here = part_of == number
            tokens[here] = self._decoded(self.parts[number], rows[here] - self._first[number])
        return tokens

    def _decoded(self, part: Part, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        codes = np.asarray(part.codes[rows])
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < len(self.codec.centroids):
            raise ValueError(
                f"{part.path} must hold numbers of centroids, 0 to {len(self.codec.centroids) - 1}, "
                f"got {codes.min()} to {codes.max()}"
            )
        return self.codec.decode(codes, part.residuals[rows])


def lengths_of(values: Any, path: Path, tokens: int) -> NDArray[np.int64]:
    """Tokens of each document, at most ``tokens`` in all, as a file has them.

    Raises:
        ValueError: they are no such numbers.
    """
    if isinstance(values, list) and all(type(value) is int and 0 <= value <= tokens for value in values):
        lengths = np.array(values, np.int64)
    elif isinstance(values, np.ndarray) and bool(((values >= 0) & (values <= tokens)).all()):
        lengths = values.astype(np.int64)
    else:
        raise ValueError(f"{path} must be a list of how many tokens each document has, from 0 to {tokens:,}")
    if (total := sum(lengths.tolist())) > tokens:
        raise ValueError(f"{path} must add up to {tokens:,} tokens at most, got {total:,}")
    return lengths
