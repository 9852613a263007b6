"""An index on disk: a folder of .npy files under a manifest, written whole or not at all. See docs/format.md."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import math
import os
import secrets
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from lateint.disk import layout

FORMAT, VERSION = "lateint", 1
MANIFEST = "index.json"
HEADER_BYTES = 128
ALWAYS_CHECKED = 1 << 20  # files up to this size have their checksum checked whenever an index is opened

Arrays = dict[str, NDArray[Any]]


class FormatError(ValueError):
    """A folder is not an index, or a damaged one, or one of a newer format."""


class Column(Protocol):
    """An array of known shape that is written from the front."""

    def write(self, part: NDArray[Any]) -> None:
        """Appends rows."""
        ...


class Store(Protocol):
    """Where a build puts its arrays."""

    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Column:
        """Begins an array; all of it must be written before `commit`."""
        ...

    def commit(self, manifest: dict[str, Any]) -> None:
        """Makes the index visible."""
        ...


def put(store: Store, name: str, array: NDArray[Any]) -> None:
    """Writes a whole array."""
    store.create(name, array.dtype, array.shape).write(array)


class MemoryStore:
    """Keeps the arrays of an index in memory."""

    def __init__(self) -> None:
        self.arrays: Arrays = {}
        self.manifest: dict[str, Any] = {}

    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Column:
        """Begins an array."""
        self.arrays[name] = np.empty(shape, dtype)
        return _MemoryColumn(self.arrays[name])

    def commit(self, manifest: dict[str, Any]) -> None:
        """Keeps the manifest."""
        self.manifest = manifest


class _MemoryColumn:
    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.filled = array, 0

    def write(self, part: NDArray[Any]) -> None:
        self.array[self.filled : self.filled + len(part)] = part
        self.filled += len(part)


class DiskStore:
    """Writes an index beside its place and moves it there when it is complete; used as a context manager.

    Leaving the context without `commit` removes everything that was written. A process that is killed cannot do that;
    its folder, which it no longer holds a lock on, goes when the next index is written to the same place.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
        if taken and not (path / MANIFEST).is_file():
            raise FileExistsError(f"{path} exists and is not an index, so it will not be overwritten")
        if taken and not overwrite:
            raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")
        self.path, self.replace = path, taken
        self.files: dict[str, _File] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _clear_leftovers(path)
            self.folder, self.lock = _locked_folder(path)
        except OSError as error:
            raise _said(error, path) from error

    def __enter__(self) -> DiskStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for file in self.files.values():
            with suppress(OSError):  # on a full disk, of what was still to be flushed
                file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise _said(error, self.path) from error

    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Column:
        """Begins the file ``name``.npy."""
        target = self.folder / f"{name}.npy"
        target.parent.mkdir(parents=True, exist_ok=True)
        self.files[name] = _File(target, np.dtype(dtype), shape)
        return self.files[name]

    def commit(self, manifest: dict[str, Any]) -> None:
        """Flushes everything to disk, writes the manifest last and renames the folder into place."""
        for file in self.files.values():
            file.finish()
        manifest["files"] = {f"{name}.npy": self.files[name].entry for name in sorted(self.files)}
        target = self.folder / MANIFEST
        with target.open("w", encoding="utf-8") as stream:
            json.dump(manifest, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        for folder in {file.path.parent for file in self.files.values()} | {self.folder}:
            _sync_folder(folder)
        old = _beside(self.path, "replaced")
        if self.replace:
            self.path.rename(old)
        try:
            self.folder.rename(self.path)
        except OSError as error:
            if self.replace:
                old.rename(self.path)
            raise _said(error, self.path) from error
        _sync_folder(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}-{secrets.token_hex(4)}")


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new folder beside ``path``, and the handle that locks it for as long as this process lives."""
    while True:
        folder = _beside(path, "building")
        folder.mkdir()
        handle = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists():  # nobody took it for a leftover in between
            return folder, handle
        os.close(handle)


def _clear_leftovers(path: Path) -> None:
    """Removes what killed processes left beside ``path``: folders that nobody holds a lock on."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.building-*"):
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
    if path.exists():  # else the last thing a killed process did was to move the old index out of the way
        for folder in path.parent.glob(f".{glob.escape(path.name)}.replaced-*"):
            shutil.rmtree(folder, ignore_errors=True)


class _File:
    """One .npy file: a header of 128 bytes, then the numbers."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, dtype, shape
        self.stream: BinaryIO = path.open("wb")
        self.crc = 0
        self.bytes = 0
        self._emit(_header(dtype, shape))

    def write(self, part: NDArray[Any]) -> None:
        self._emit(np.ascontiguousarray(part, self.dtype).tobytes())

    def _emit(self, data: bytes) -> None:
        self.stream.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self.bytes += len(data)

    @property
    def entry(self) -> dict[str, Any]:
        return {"dtype": self.dtype.str, "shape": list(self.shape), "bytes": self.bytes, "crc32": self.crc}

    def finish(self) -> None:
        expected = HEADER_BYTES + _data_bytes(self.dtype, self.shape)
        assert self.bytes == expected, f"{self.path.name}: {self.bytes} bytes written, {expected} declared"
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.close()

    def close(self) -> None:
        self.stream.close()


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """NPY version 1.0, padded to 128 bytes so that the numbers start on a cache line."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {tuple(int(n) for n in shape)}, }}"
    room = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text.ljust(room - 1).encode("ascii") + b"\n"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _said(error: OSError, path: Path) -> OSError:
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    why = "the disk is full" if full else error.strerror or str(error)
    return OSError(error.errno, f"cannot write the index: {why}; nothing was left behind", str(path))


def load(path: Path, *, verify: bool = False) -> tuple[dict[str, Any], Arrays]:
    """The manifest and the memory-mapped arrays of an index.

    Args:
        path: the folder.
        verify: also compare every file with its checksum, which reads all of it.

    Raises:
        FormatError: names the file that is missing, damaged or foreign.
    """
    manifest = _load_manifest(path)
    try:
        kinds = layout.kinds(manifest)
        entries = {name: manifest["files"][f"{name}.npy"] for name in kinds}
        for entry in entries.values():
            _ = entry["dtype"], [*entry["shape"]], entry["bytes"], entry["crc32"]
    except KeyError as error:
        raise FormatError(f"{path / MANIFEST} is damaged: it lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path / MANIFEST} is damaged: {error}") from error
    for name, kind in kinds.items():
        if not kind.fits(entries[name]["dtype"], entries[name]["shape"]):
            found = f"{entries[name]['dtype']} {entries[name]['shape']}"
            raise FormatError(f"{path / name}.npy must hold {kind}, found {found}; the index is damaged")
    arrays = {name: _load_array(path / f"{name}.npy", entries[name], verify) for name in kinds}
    for name, kind in kinds.items():
        if wrong := kind.wrong_offsets(arrays[name], arrays):
            raise FormatError(f"{path / name}.npy {wrong}; the index is damaged")
    return manifest, arrays


def _load_manifest(path: Path) -> dict[str, Any]:
    target = path / MANIFEST
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no index", str(path))
    if not path.is_dir():
        raise FormatError(f"{path} is not an index: it is a file, not a folder")
    if not target.is_file():
        raise FormatError(f"{path} is not an index: it has no {MANIFEST}")
    try:
        manifest = json.loads(target.read_text(encoding="utf-8"))
        name, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{target} is not the manifest of an index: {error}") from error
    if name != FORMAT:
        raise FormatError(f"{target} says format {name!r}, an index of lateint says {FORMAT!r}")
    if version != VERSION:
        raise FormatError(f"{path} was written in format version {version}, this lateint reads version {VERSION}")
    return dict(manifest)


def _load_array(target: Path, entry: Mapping[str, Any], verify: bool) -> NDArray[Any]:
    if not target.is_file():
        raise FormatError(f"{target} is missing; the index is damaged")
    size = target.stat().st_size
    if size != entry["bytes"]:
        raise FormatError(f"{target}: expected {entry['bytes']} bytes, found {size}; the index is damaged")
    if (verify or size <= ALWAYS_CHECKED) and _checksum(target) != entry["crc32"]:
        raise FormatError(f"{target} does not match its checksum; the index is damaged")
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    with target.open("rb") as stream:
        if stream.read(HEADER_BYTES) != _header(dtype, shape) or size != HEADER_BYTES + _data_bytes(dtype, shape):
            raise FormatError(f"{target} is not a .npy file of {dtype.str} {entry['shape']}; the index is damaged")
    if size == HEADER_BYTES:
        return np.empty(shape, dtype)  # nothing cannot be mapped
    return np.asarray(np.memmap(target, dtype, "r", HEADER_BYTES, shape))


def _data_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc
