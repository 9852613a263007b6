"""Indexes in object stores: files are copied once, compared with their checksums, and mapped from where they are then.

A store has the files of an index under their names. None ever changes, and the manifest is written last; so a reader
finds an index whole, or as it was before. A folder of local copies has each file under a name made of its checksums,
and for each url a folder of links to them, which is an index like any other.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import posixpath
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lateint.disk import store, whole
from lateint.disk.folder import MissingError
from lateint.disk.manifest import MANIFEST, Bundle, File, FormatError, Manifest

FILES, LOCK = "files", "lock"
CHUNK = 1 << 22  # bytes read at a time


def is_url(path: str) -> bool:
    """Whether a path is one of fsspec's urls, such as ``s3://bucket/index``."""
    return "://" in path


@contextmanager
def copied(url: str, cache: Path) -> Iterator[Path]:
    """The folder of local copies of an index, which nobody removes within the block.

    Raises:
        FileNotFoundError: there is nothing at ``url``.
        FormatError: it is not an index, or a damaged one; the message names the file.
    """
    place = Store(url)
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / LOCK):
        before = None
        while True:
            text = place.manifest()
            if text is None:
                raise FileNotFoundError(2, "there is no index", url)
            manifest, key = store.parsed(text, url), _key(url)
            folder = cache / f"{key}-{hashlib.sha256(text).hexdigest()[:16]}"
            try:
                if not folder.is_dir():
                    _copy(place, manifest, text, cache, folder)
                break
            except FormatError:
                if text == before:
                    raise
                before = text  # another may have been pushed meanwhile
        _forget(cache, key, folder)
        yield folder


def push(folder: Path, url: str) -> None:
    """Copies an index to ``url``: new files first, the manifest last.

    Raises:
        FileExistsError: another index is there, or a later state of this one.
        FormatError: a file of ``folder`` is damaged.
    """
    place = Store(url)
    while True:
        text = (folder / MANIFEST).read_bytes()
        manifest = store.parsed(text, str(folder))
        there = place.manifest()
        old = None if there is None else store.parsed(there, url)
        if there == text:
            return
        if old is not None:
            _check_follows(manifest, old, url)
        try:
            for name, file in manifest.files.items():
                if old is None or name not in old.files:
                    _check(folder / name, file, str(folder / name))
                    place.put(folder / name, name)
            break
        except FileNotFoundError:  # a commit came between
            if (folder / MANIFEST).read_bytes() == text:
                raise
    place.finish(text)
    for name in old.files if old is not None else ():
        if name not in manifest.files:
            place.remove(name)


def _check_follows(manifest: Manifest, old: Manifest, url: str) -> None:
    for name, file in manifest.files.items():
        if name in old.files and old.files[name] != file:
            raise FileExistsError(f"{url} holds another index, whose {name} differs; push to a place of its own")
    if old.generation >= manifest.generation:
        raise FileExistsError(
            f"{url} holds generation {old.generation} of this index, and this is generation {manifest.generation}"
        )


class Store:
    """A place in an object store.

    Raises:
        ImportError: fsspec, or what it needs for this url, is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise ImportError("a url needs fsspec: pip install 'lateint[remote]'") from None
        self.url = url.rstrip("/")
        self.files: Any
        self.files, self.root = fsspec.core.url_to_fs(self.url)
        self.files.invalidate_cache()

    def manifest(self) -> bytes | None:
        """Its bytes; None: there is none."""
        try:
            return bytes(self.files.cat_file(self._at(MANIFEST)))
        except FileNotFoundError:
            return None

    def get(self, name: str, target: Path) -> None:
        """Copies a file here."""
        try:
            self.files.get_file(self._at(name), str(target))
        except FileNotFoundError as error:
            raise MissingError(f"{self.url}/{name} is missing; the index is damaged") from error

    def put(self, source: Path, name: str) -> None:
        """Copies a file there."""
        self.files.makedirs(posixpath.dirname(self._at(name)), exist_ok=True)
        self.files.put_file(str(source), self._at(name))

    def finish(self, text: bytes) -> None:
        """Writes the manifest beside its place and moves it there, for not every store writes a file in one step."""
        self.files.makedirs(self.root, exist_ok=True)
        self.files.pipe_file(self._at(f"{MANIFEST}.new"), text)
        self.files.mv(self._at(f"{MANIFEST}.new"), self._at(MANIFEST))

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError):
            self.files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"


def _copy(place: Store, manifest: Manifest, text: bytes, cache: Path, folder: Path) -> None:
    (cache / FILES).mkdir(exist_ok=True)
    for name, file in manifest.files.items():
        local = cache / FILES / _named(file)
        if local.exists():
            continue
        with whole.file(local) as part:
            place.get(name, part)
            _check(part, file, f"{place.url}/{name}")
    with whole.folder(folder) as made:
        for name, file in manifest.files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            _link(cache / FILES / _named(file), made / name)
        (made / MANIFEST).write_bytes(text)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _forget(cache: Path, key: str, folder: Path) -> None:
    """Removes what was copied of earlier states of the same url, and files that no folder has any more."""
    for other in cache.glob(f"{key}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    wanted = set()
    for kept in cache.glob(f"*/{MANIFEST}"):
        wanted |= {_named(file) for file in store.parsed(kept.read_bytes(), str(kept.parent)).files.values()}
    for path in (cache / FILES).iterdir():
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def _check(path: Path, file: File | Bundle, name: str) -> None:
    """Compares a file with its length and checksums.

    Raises:
        FormatError: it differs; the message begins with ``name``.
    """
    if (found := path.stat().st_size) != file.bytes:
        raise FormatError(f"{name}: expected {file.bytes} bytes, found {found}; the index is damaged")
    with path.open("rb") as stream:
        for image in file.arrays.values() if isinstance(file, Bundle) else (file,):
            stream.seek(image.offset)
            crc, left = 0, image.bytes
            while left and (data := stream.read(min(CHUNK, left))):
                crc, left = zlib.crc32(data, crc), left - len(data)
            if left or crc != image.crc32:
                raise FormatError(f"{name} does not match its checksum; the index is damaged")


def _named(file: File | Bundle) -> str:
    return hashlib.sha256(json.dumps(file.to_json(), sort_keys=True).encode()).hexdigest()[:32]


def _key(url: str) -> str:
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
