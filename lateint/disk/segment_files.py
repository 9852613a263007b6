"""A segment in one file: complete .npy images, one after another."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.files import ALIGNED, HEADER_BYTES, header
from lateint.disk.manifest import Bundle, File


@dataclass(frozen=True)
class Rows:
    """An array of known shape that comes in parts, any number of times.

    Attributes:
        parts: gives its rows, from the front.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[NDArray[Any]]]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Rows:
        """An array that is there already."""
        return cls(array.dtype, array.shape, lambda: [array])

    def whole(self) -> NDArray[Any]:
        """In memory."""
        out = np.empty(self.shape, self.dtype)
        at = 0
        for part in self.parts():
            out[at : at + len(part)] = part
            at += len(part)
        assert at == len(out), f"{at} rows given, {len(out)} declared"
        return out


class Writer:
    """What to write for some arrays, and afterwards what the manifest says of it."""

    def __init__(self, arrays: Mapping[str, Rows]) -> None:
        self._arrays = arrays
        self._images: dict[str, File] = {}
        self._bytes = 0

    def parts(self) -> Iterator[bytes | memoryview]:
        """The bytes of the file."""
        for name, rows in self._arrays.items():
            yield from self._padding()
            offset, crc = self._bytes, 0
            for data in self._image(rows):
                crc = zlib.crc32(data, crc)
                self._bytes += len(data)
                yield data
            expected = HEADER_BYTES + int(np.prod(rows.shape, dtype=np.int64)) * rows.dtype.itemsize
            assert self._bytes - offset == expected, f"{name}: {self._bytes - offset} bytes given, {expected} declared"
            self._images[name] = File(rows.dtype.str, tuple(map(int, rows.shape)), expected, crc, offset)

    def _image(self, rows: Rows) -> Iterator[bytes | memoryview]:
        yield header(rows.dtype, rows.shape)
        for part in rows.parts():
            if part.size:
                yield np.ascontiguousarray(part, rows.dtype).data.cast("B")

    def _padding(self) -> Iterator[bytes]:
        if gap := -self._bytes % ALIGNED:
            self._bytes += gap
            yield bytes(gap)

    @property
    def bundle(self) -> Bundle:
        """What was written."""
        return Bundle(self._bytes, self._images)
