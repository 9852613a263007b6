"""Where the arrays of an index are: in memory, or in a folder under a manifest, written whole or not at all."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lateint.disk import checks, files, layout, whole
from lateint.disk.files import Column
from lateint.disk.folder import Folder
from lateint.disk.layout import Kind
from lateint.disk.manifest import FORMAT, MANIFEST, VERSION, FormatError, Manifest

PATIENCE = 1.0  # seconds that an index may be away while another takes its place in two renames
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

Arrays = dict[str, NDArray[Any]]


class Rows(Protocol):
    """An array of known shape that is written from the front."""

    def write(self, part: NDArray[Any]) -> None:
        """Appends rows."""


class Store(Protocol):
    """Where a build puts its arrays."""

    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Rows:
        """Begins an array; all of it must be written before `commit`."""

    def commit(self, manifest: Manifest) -> None:
        """Ends the index, of which this is the manifest but for its files."""


def put(store: Store, name: str, array: NDArray[Any]) -> None:
    """Writes a whole array."""
    store.create(name, array.dtype, array.shape).write(array)


class MemoryStore:
    """Keeps the arrays of an index in memory."""

    def __init__(self) -> None:
        self.arrays: Arrays = {}
        self.index: tuple[Manifest, Arrays]

    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Rows:
        """Begins an array."""
        self.arrays[name] = np.empty(shape, dtype)
        return _MemoryRows(self.arrays[name])

    def commit(self, manifest: Manifest) -> None:
        """Keeps the manifest, too: `index` is then what `load` gives of a folder."""
        self.index = manifest, self.arrays


class _MemoryRows:
    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.filled = array, 0

    def write(self, part: NDArray[Any]) -> None:
        self.array[self.filled : self.filled + len(part)] = part
        self.filled += len(part)


class FolderStore:
    """Writes the arrays of an index as files of a folder, and its manifest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.columns: dict[str, Column] = {}
        self.committed = False

    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Rows:
        """Begins the file ``name``.npy."""
        path = self.folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.columns[name] = Column(path, np.dtype(dtype), shape)
        return self.columns[name]

    def commit(self, manifest: Manifest) -> None:
        """Ends all files and writes the manifest."""
        entries = {f"{name}.npy": self.columns[name].finish() for name in sorted(self.columns)}
        with (self.folder / MANIFEST).open("w", encoding="utf-8") as stream:
            json.dump(replace(manifest, files=entries).to_json(), stream, indent=1)
        self.committed = True

    def close(self) -> None:
        """Closes what `commit` did not."""
        for column in self.columns.values():
            with suppress(OSError):  # on a full disk, of what was still to be flushed
                column.close()


@contextmanager
def writing(path: Path, *, overwrite: bool) -> Iterator[FolderStore]:
    """A store whose folder takes its place at ``path`` when the block, which commits it, ends without an error.

    Raises:
        FileExistsError: there is something at ``path`` that is not an index, or that is not to be replaced.
        OSError: it cannot be written. Nothing is left half-written.
    """
    _check_place(path, overwrite)
    raised: BaseException | None = None
    try:
        with whole.folder(path, replace=overwrite) as folder:
            store = FolderStore(folder)
            try:
                yield store
                _check_place(path, overwrite)  # once more, for builds take long
            except BaseException as error:
                raised = error
                raise
            finally:
                store.close()
            assert store.committed, f"{path} was not committed"
    except OSError as error:
        if error is raised and error.errno not in FULL:
            raise
        raise _said(error, path) from error


def _check_place(path: Path, overwrite: bool) -> None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / MANIFEST).is_file():
        raise FileExistsError(f"{path} exists and is not an index, so it will not be overwritten")
    if not overwrite:
        raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")


def _said(error: OSError, path: Path) -> OSError:
    why = "the disk is full" if error.errno in FULL else error.strerror or str(error)
    return OSError(error.errno, f"cannot write the index: {why}; nothing was left behind", str(path))


def load(path: Path, *, verify: bool = False) -> tuple[Manifest, Arrays]:
    """The manifest and the memory-mapped arrays of an index.

    Args:
        path: the folder. Another may take its place at any time: all files are of the one or all are of the other.
        verify: compare every file with its checksum and look at every number that must be within bounds, which reads
            all of them. Files up to `lateint.disk.files.ALWAYS_CHECKED` bytes always are.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        FormatError: names the file that is missing, damaged or foreign.
    """
    while True:
        with _opened(path) as folder:
            try:
                return _load(folder, verify)
            except FormatError:
                if folder.is_current():
                    raise


def _opened(path: Path) -> Folder:
    started = time.monotonic()
    while True:
        try:
            return Folder(path)
        except NotADirectoryError:
            raise FormatError(f"{path} is not an index: it is a file, not a folder") from None
        except FileNotFoundError:
            aside = whole.moved_aside(path)
            if aside is None and not path.exists():
                raise FileNotFoundError(errno.ENOENT, "there is no index", str(path)) from None
            if time.monotonic() - started > PATIENCE:
                why = f"there is no index, but a process that was killed moved one aside; rename {aside} to get it back"
                raise FileNotFoundError(errno.ENOENT, why, str(path)) from None
            time.sleep(0.001)


def _load(folder: Folder, verify: bool) -> tuple[Manifest, Arrays]:
    manifest, kinds = _load_manifest(folder)
    for name, kind in kinds.items():
        file = manifest.files.get(f"{name}.npy")
        if file is None:
            raise FormatError(f"{folder.path / MANIFEST} is damaged: it lacks '{name}.npy'")
        if not kind.fits(file.dtype, file.shape):
            what = f"must hold {kind}, found {file.dtype} {list(file.shape)}"
            raise FormatError(f"{folder.path / name}.npy {what}; the index is damaged")
    arrays = {name: files.load(folder, f"{name}.npy", manifest.files[f"{name}.npy"], verify=verify) for name in kinds}
    small = {name for name in kinds if manifest.files[f"{name}.npy"].bytes <= files.ALWAYS_CHECKED}
    if wrong := checks.wrong(manifest, arrays, small, verify=verify):
        raise FormatError(f"{folder.path / wrong[0]}.npy {wrong[1]}; the index is damaged")
    return manifest, arrays


def _load_manifest(folder: Folder) -> tuple[Manifest, dict[str, Kind]]:
    target = folder.path / MANIFEST
    try:
        with folder.open(MANIFEST) as descriptor, open(descriptor, "rb", closefd=False) as stream:
            text = stream.read()
    except FormatError as error:
        raise FormatError(f"{folder.path} is not an index: it has no {MANIFEST}") from error
    try:
        values = json.loads(text.decode("utf-8"))
        name, version = values["format"], values["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{target} is not the manifest of an index: {error}") from error
    if name != FORMAT:
        raise FormatError(f"{target} says format {name!r}, an index of lateint says {FORMAT!r}")
    if version != VERSION:
        raise FormatError(
            f"{folder.path} was written in format version {version}, this lateint reads version {VERSION}"
        )
    try:
        manifest = Manifest.from_json(values)
        return manifest, layout.kinds(manifest)
    except KeyError as error:
        raise FormatError(f"{target} is damaged: it lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{target} is damaged: {error}") from error
