"""A folder that is read through its descriptor: all files are of one index, whatever takes its place meanwhile."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import FormatError


class MissingError(FormatError):
    """A file that a manifest names is not there: damage, or a commit that came while it was read."""


class Folder:
    """An open folder; used as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def is_current(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    @contextmanager
    def open(self, name: str) -> Iterator[int]:
        """The descriptor of a file below the folder, by its name with ``/`` between folders.

        Raises:
            MissingError: there is none.
            FormatError: it is no file, or a folder on the way is a symbolic link: an index is in one place.
        """
        path = self.path / name
        *folders, leaf = name.split("/")
        way = [self._descriptor]
        try:
            for folder in folders:
                way.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=way[-1]))
            way.append(os.open(leaf, os.O_RDONLY | os.O_NONBLOCK, dir_fd=way[-1]))  # a pipe is not waited for
            if not stat.S_ISREG(os.fstat(way[-1]).st_mode):
                raise FormatError(f"{path} is not a file; the index is damaged")
            yield way[-1]
        except FileNotFoundError as error:
            raise MissingError(f"{path} is missing; the index is damaged") from error
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise FormatError(f"{path} must not be behind a symbolic link or a file; the index is damaged") from error
        finally:
            for descriptor in way[1:]:
                os.close(descriptor)

    def read(self, name: str) -> bytes:
        """All of a small file; raises what `open` raises."""
        with self.open(name) as descriptor, open(descriptor, "rb", closefd=False) as stream:
            return stream.read()

    def mapped(self, name: str, size: int) -> memoryview:
        """The bytes of a file, mapped into memory.

        Raises:
            MissingError, FormatError: it is not there, or not of this size.
        """
        with self.open(name) as descriptor:
            found = os.fstat(descriptor).st_size
            if found != size:
                raise FormatError(f"{self.path / name}: expected {size} bytes, found {found}; the index is damaged")
            return mapped(descriptor, size).data if size else memoryview(b"")


def mapped(descriptor: int, size: int) -> NDArray[np.uint8]:
    """The first ``size`` bytes of a file, mapped for reading for as long as an array of them lives.

    `mmap.mmap` would keep a descriptor for each file, of which an index in many segments has more than a process may.
    """
    address = _libc.mmap(None, size, _PROT_READ, _MAP_SHARED, descriptor, 0)
    if address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # A header is looked at now; around a page that it lacks, the system may read megabytes.
    _libc.madvise(address, min(size, mmap.PAGESIZE), _MADV_WILLNEED)
    memory = (ctypes.c_ubyte * size).from_address(address)
    unmap = weakref.finalize(memory, _libc.munmap, address, size)
    unmap.atexit = False  # another thread may still be searching
    return np.frombuffer(memoryview(memory).toreadonly(), np.uint8)


_PROT_READ, _MAP_SHARED, _MAP_FAILED = 1, 1, ctypes.c_void_p(-1).value
_MADV_WILLNEED = 3
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
