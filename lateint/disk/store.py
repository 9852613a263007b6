"""Where the arrays of an index are: in memory, or in a folder under a manifest, written whole or not at all."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lateint.disk import checks, layout, whole
from lateint.disk.commits import FULL, LOCK, replacing, said
from lateint.disk.files import Column, array_of
from lateint.disk.folder import Folder, MissingError
from lateint.disk.manifest import FORMAT, MANIFEST, VERSION, Bundle, File, FormatError, Manifest

PATIENCE = 1.0  # seconds that an index may be away while another takes its place in two renames
PLACING_PATIENCE = 1.0  # seconds to wait before a build: another one that takes its place holds the lock for moments
WRITER_PATIENCE = 10.0  # seconds that what is finished waits for who writes to the index that it is to replace
ALWAYS_CHECKED = (
    1 << 20
)  # files up to this size are compared with their checksum and read whole whenever they are opened
ALWAYS_CHECKED_WITHIN = 1 << 14  # likewise arrays within a file, of which there may be many

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


AnyStore = TypeVar("AnyStore", bound=FolderStore)


@contextmanager
def writing(path: Path, *, overwrite: bool) -> Iterator[FolderStore]:
    """A store whose folder takes its place at ``path`` when the block, which commits it, ends without an error.

    Raises:
        FileExistsError: there is something at ``path`` that is not an index, or that is not to be replaced.
        LockedError: somebody writes to the index that would be replaced, when the block begins or still a while after
            its end.
        OSError: it cannot be written. Nothing is left half-written.
    """
    with placing(path, FolderStore, overwrite=overwrite, unfinished=None) as store:
        yield store


@contextmanager
def placing(
    path: Path, make: Callable[[Path], AnyStore], *, overwrite: bool, unfinished: str | None
) -> Iterator[AnyStore]:
    """`writing` of a store that ``make`` makes of its folder; ``unfinished``: see `whole.folder`.

    Raises:
        FileExistsError: there is something at ``path`` that is not an index, or that is not to be replaced.
        LockedError: somebody writes to the index that would be replaced, when the block begins or still a while after
            its end.
        OSError: it cannot be written. Nothing is left half-written.
    """
    if _check_place(path, overwrite) and (path / LOCK).exists():
        with replacing(path, timeout=PLACING_PATIENCE):
            pass  # nobody writes to what will go
    raised: BaseException | None = None
    try:
        with ExitStack() as held, whole.folder(path, replace=overwrite, unfinished=unfinished) as folder:
            store = make(folder)
            try:
                yield store
                if _check_place(path, overwrite):  # once more, for builds take long
                    held.enter_context(replacing(path, timeout=WRITER_PATIENCE))  # until the one is where the other was
            except BaseException as error:
                raised = error
                raise
            finally:
                store.close()
            assert store.committed, f"{path} was not committed"
    except OSError as error:
        if error is raised and error.errno not in FULL:
            raise
        left = "nothing was left behind" if unfinished is None else "resume=True goes on with what is done"
        raise said(error, path, left) from error


def _check_place(path: Path, overwrite: bool) -> bool:
    """Whether there is an index that will be replaced."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    if not (path / MANIFEST).is_file():
        raise FileExistsError(f"{path} exists and is not an index, so it will not be overwritten")
    if not overwrite:
        raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")
    return True


def load(path: Path, *, verify: bool = False, known: tuple[Manifest, Arrays] | None = None) -> tuple[Manifest, Arrays]:
    """The manifest and the memory-mapped arrays of an index.

    A writer may commit meanwhile: if a file is gone that the manifest named, the manifest is read again.

    Args:
        path: the folder. Another may take its place at any time: all files are of the one or all are of the other.
        verify: compare every file with its checksum and look at every number that must be within bounds, which reads
            all of them. Small files always are.
        known: what this gave earlier: files that are still there are not mapped again.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        FormatError: names the file that is missing, damaged or foreign.
    """
    before = None
    while True:
        with _opened(path) as folder:
            text = None
            try:
                manifest, text = _load_manifest(folder)
                return manifest, _load_arrays(folder, manifest, verify, known)
            except FormatError as error:
                changing = isinstance(error, MissingError) and text != before  # by a commit meanwhile
                if folder.is_current() and not changing:
                    raise
                before = text


def load_manifest(path: Path) -> Manifest:
    """The manifest alone; raises what `load` raises."""
    with _opened(path) as folder:
        return _load_manifest(folder)[0]


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


def _load_arrays(folder: Folder, manifest: Manifest, verify: bool, known: tuple[Manifest, Arrays] | None) -> Arrays:
    kinds, images = layout.kinds(manifest), _images(manifest)
    mapped: dict[str, memoryview] = {}
    paths: dict[str, Path] = {}
    arrays: Arrays = {}
    small = set()
    for name, kind in kinds.items():
        if name not in images:
            raise FormatError(f"{folder.path / MANIFEST} is damaged: it lacks '{name}.npy'")
        file, size, image = images[name]
        if not kind.fits(image.dtype, image.shape):
            what = f"must hold {kind}, found {image.dtype} {list(image.shape)}"
            raise FormatError(f"{folder.path / name}.npy {what}; the index is damaged")
        if known is not None and known[0].files.get(file) == manifest.files[file] and name in known[1]:
            arrays[name] = known[1][name]
            continue
        if file not in mapped:
            mapped[file] = folder.mapped(file, size)
            paths[file] = folder.path / file
        leaf = name.rsplit("/")[-1] if file.endswith(".seg") else ""
        if image.bytes <= (ALWAYS_CHECKED_WITHIN if leaf else ALWAYS_CHECKED):
            small.add(name)
        arrays[name] = array_of(mapped[file], image, paths[file], leaf, verify=verify or name in small)
    if wrong := checks.wrong(manifest, arrays, small, verify=verify, known={} if known is None else known[1]):
        raise FormatError(f"{folder.path / wrong[0]}.npy {wrong[1]}; the index is damaged")
    return arrays


def _images(manifest: Manifest) -> dict[str, tuple[str, int, File]]:
    """By the name of an array: its file, how long that is, and where in it the array is."""
    images = {}
    for name, file in manifest.files.items():
        stem = name.rsplit(".", 1)[0]
        if isinstance(file, Bundle):
            images.update({f"{stem}/{leaf}": (name, file.bytes, image) for leaf, image in file.arrays.items()})
        else:
            images[stem] = (name, file.bytes, file)
    return images


def _load_manifest(folder: Folder) -> tuple[Manifest, bytes]:
    try:
        text = folder.read(MANIFEST)
    except FormatError as error:
        raise FormatError(f"{folder.path} is not an index: it has no {MANIFEST}") from error
    return parsed(text, str(folder.path)), text


def parsed(text: bytes, place: str) -> Manifest:
    """A manifest of its bytes; ``place`` is the folder or url that they are from.

    Raises:
        FormatError: they are none, or one of a newer format.
    """
    target = f"{place}/{MANIFEST}"
    try:
        values = json.loads(text.decode("utf-8"))
        name, version = values["format"], values["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{target} is not the manifest of an index: {error}") from error
    if name != FORMAT:
        raise FormatError(f"{target} says format {name!r}, an index of lateint says {FORMAT!r}")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise FormatError(
            f"{place} was written in format version {version}, this lateint reads versions 1 to {VERSION}"
        )
    try:
        manifest = Manifest.from_json(values)
        layout.kinds(manifest)  # no two arrays have one name
        return manifest
    except KeyError as error:
        raise FormatError(f"{target} is damaged: it lacks {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise FormatError(f"{target} is damaged: {error}") from error
