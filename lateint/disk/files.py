"""One .npy file: a header of 128 bytes, then the numbers; written from the front, mapped when it is read."""

from __future__ import annotations

import math
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lateint.disk.folder import Folder, mapped
from lateint.disk.manifest import File, FormatError

HEADER_BYTES = 128
ALWAYS_CHECKED = 1 << 20  # files up to this size have their checksum compared whenever an index is opened


class Column:
    """A file that is written from the front, and closed when it is complete."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, dtype, shape
        self.stream: BinaryIO = path.open("wb")
        self.crc = 0
        self.bytes = 0
        self.expected = HEADER_BYTES + _data_bytes(dtype, shape)
        self._emit(header(dtype, shape))

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
        assert self.bytes == self.expected, f"{self.path.name}: {self.bytes} bytes written, {self.expected} declared"
        return File(self.dtype.str, self.shape, self.bytes, self.crc)

    def close(self) -> None:
        """Closes the file."""
        self.stream.close()


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """NPY version 1.0, padded to 128 bytes so that the numbers start on a cache line."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {tuple(int(n) for n in shape)}, }}"
    room = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode("ascii") + b"\n"


def load(folder: Folder, name: str, file: File, *, verify: bool) -> NDArray[Any]:
    """The numbers of a file, mapped into memory.

    Args:
        name: of the file in the folder.
        file: what it must be.
        verify: compare its checksum, which reads all of it; that of a file up to `ALWAYS_CHECKED` bytes always is.

    Raises:
        FormatError: it is missing or not what it must be.
    """
    path, dtype = folder.path / name, np.dtype(file.dtype)
    with folder.open(name) as descriptor:
        size = os.fstat(descriptor).st_size
        if size != file.bytes:
            raise FormatError(f"{path}: expected {file.bytes} bytes, found {size}; the index is damaged")
        if (verify or size <= ALWAYS_CHECKED) and _checksum(descriptor) != file.crc32:
            raise FormatError(f"{path} does not match its checksum; the index is damaged")
        known = os.pread(descriptor, HEADER_BYTES, 0) == header(dtype, file.shape)
        if not known or size != HEADER_BYTES + _data_bytes(dtype, file.shape):
            raise FormatError(f"{path} is not a .npy file of {dtype.str} {list(file.shape)}; the index is damaged")
        return mapped(descriptor, size)[HEADER_BYTES:].view(dtype).reshape(file.shape)


def _data_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _checksum(descriptor: int) -> int:
    crc = place = 0
    while block := os.pread(descriptor, 1 << 22, place):
        crc, place = zlib.crc32(block, crc), place + len(block)
    return crc
