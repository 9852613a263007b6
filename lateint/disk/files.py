"""One .npy image: a header of 128 bytes, then the numbers; written from the front, mapped when it is read."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import File, FormatError

HEADER_BYTES = 128
ALIGNED = 64  # images in one file begin on multiples of it


class Column:
    """A file that is written from the front, and closed when it is complete."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, dtype, shape
        self.stream: BinaryIO = path.open("wb")
        self.crc = 0
        self.bytes = 0
        self.expected = HEADER_BYTES + _data_bytes(dtype, shape)
        self._emit(header(dtype, shape))

    @classmethod
    def going_on(cls, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], bytes: int, crc: int) -> Column:
        """A file of which so many bytes, with this checksum, are written already."""
        column = cls.__new__(cls)
        column.path, column.dtype, column.shape, column.crc, column.bytes = path, dtype, shape, crc, bytes
        column.expected = HEADER_BYTES + _data_bytes(dtype, shape)
        column.stream = path.open("ab")
        return column

    def write(self, part: NDArray[Any]) -> None:
        """Appends rows."""
        self._emit(np.ascontiguousarray(part, self.dtype).tobytes())

    def _emit(self, data: bytes) -> None:
        if data:
            self.stream.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self.bytes += len(data)
        if self.bytes == self.expected:  # an index in many segments has more files than a process may keep open
            self.close()

    def finish(self) -> File:
        """What the file is, which is complete."""
        assert self.complete, f"{self.path.name}: {self.bytes} bytes written, {self.expected} declared"
        self.close()
        return self.entry

    @property
    def complete(self) -> bool:
        """Whether all of it is written."""
        return self.bytes == self.expected

    @property
    def entry(self) -> File:
        """What is written so far."""
        return File(self.dtype.str, self.shape, self.bytes, self.crc)

    def flush(self) -> None:
        """Hands what is written to the system."""
        if not self.stream.closed:
            self.stream.flush()

    def close(self) -> None:
        """Closes the file."""
        self.stream.close()


@lru_cache(1024)
def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """NPY version 1.0, padded to 128 bytes so that the numbers start on a cache line."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {tuple(int(n) for n in shape)}, }}"
    room = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode("ascii") + b"\n"


def array_of(data: memoryview, file: File, path: Path, leaf: str = "", *, verify: bool) -> NDArray[Any]:
    """The numbers of an image within the bytes of a file.

    Args:
        file: what it must be.
        path: of the file, for messages.
        leaf: the array, if the file holds several.
        verify: compare its checksum, which reads all of it.

    Raises:
        FormatError: it is not what it must be.
    """
    image = data[file.offset : file.offset + file.bytes]
    dtype = np.dtype(file.dtype)
    there = len(image) == file.bytes == HEADER_BYTES + _data_bytes(dtype, file.shape) and file.offset % ALIGNED == 0
    if there and verify and zlib.crc32(image) != file.crc32:
        raise FormatError(f"{_within(path, leaf)} does not match its checksum; the index is damaged")
    if not there or image[:HEADER_BYTES] != header(dtype, file.shape):
        raise FormatError(
            f"{_within(path, leaf)} is not a .npy file of {dtype.str} {list(file.shape)}; the index is damaged"
        )
    if file.bytes == HEADER_BYTES:
        return np.empty(file.shape, dtype)
    return np.frombuffer(image, dtype, offset=HEADER_BYTES).reshape(file.shape)


def _within(path: Path, leaf: str) -> str:
    return f"{path}: {leaf}" if leaf else str(path)


def _data_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize
