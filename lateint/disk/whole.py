"""Whole or not at all: what is written lies beside its place until it is complete, and one rename moves it there.

A process that is killed meanwhile leaves nothing at the place but what was there before. Symbolic links stay: what they
point to is replaced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write a file to, which takes the place of ``path`` when the block ends without an error."""
    place = real(path)
    part = _beside(place, "writing")
    try:
        yield part
        flush(part)
        part.replace(place)
        flush(place.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder(path: str | os.PathLike[str], *, replace: bool = False, unfinished: str | None = None) -> Iterator[Path]:
    """A folder to write into, which takes the place of ``path`` when the block ends without an error.

    The writer holds a lock (`flock`) on it. What killed writers left is locked by nobody; it goes when the next one
    begins.

    Args:
        replace: whether a folder at ``path`` that is not empty may be replaced; the caller knows what it holds.
        unfinished: the name of a file that says how far a folder is. One that has it is not removed, but is the folder
            to go on with; and it stays when this writer is stopped, unless by a TypeError or ValueError. None: the
            folder is empty.

    Raises:
        OSError: ``path`` cannot be written, or something is there that is not to be replaced.
    """
    place = real(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(place):
        raise OSError(errno.EBUSY, "it is a mount point, which nothing can take the place of; choose a folder in it")
    work, lock = _clear_leftovers(place, unfinished) or _locked_folder(place)
    kept = False
    try:
        yield work
        flush_all(work)
        _take_place(work, place, replace)
        flush(place.parent)
    except BaseException as error:
        kept = (
            unfinished is not None and (work / unfinished).is_file() and not isinstance(error, (TypeError, ValueError))
        )
        raise
    finally:
        if not kept:
            shutil.rmtree(work, ignore_errors=True)  # what is not complete, or what was there before
        os.close(lock)


def real(path: str | os.PathLike[str]) -> Path:
    """The place that a path leads to through symbolic links.

    Raises:
        OSError: they lead in a circle.
    """
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return place


def moved_aside(path: str | os.PathLike[str]) -> Path | None:
    """The folder that a writer moved aside to put another one at ``path``, where a file system cannot exchange two."""
    place = real(path)
    return next(place.parent.glob(f".{glob.escape(place.name)}.replaced-*"), None)


def _beside(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.{what}-{secrets.token_hex(4)}")


def _locked_folder(place: Path) -> tuple[Path, int]:
    """A new folder beside ``place``, and the descriptor that locks it for as long as this process lives."""
    while True:
        work = _beside(place, "building")
        work.mkdir()
        try:
            lock = os.open(work, os.O_RDONLY)
        except FileNotFoundError:  # another writer took it for a leftover
            continue
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if work.exists():
            return work, lock
        os.close(lock)


def _clear_leftovers(place: Path, unfinished: str | None) -> tuple[Path, int] | None:
    """Removes what killed writers left; returns a folder to go on with, if there is one, and what locks it."""
    found: tuple[Path, int] | None = None
    for work in sorted(place.parent.glob(f".{glob.escape(place.name)}.building-*")):
        with suppress(OSError):
            lock = os.open(work, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if found is None and unfinished is not None and (work / unfinished).is_file():
                    found, lock = (work, lock), -1
                else:
                    shutil.rmtree(work, ignore_errors=True)
            finally:
                if lock >= 0:
                    os.close(lock)
    if place.exists():  # else a writer is between two renames, or was killed there
        for old in place.parent.glob(f".{glob.escape(place.name)}.replaced-*"):
            shutil.rmtree(old, ignore_errors=True)
    return found


def _take_place(work: Path, place: Path, replace: bool) -> None:
    while not (replace and _exchange(work, place)):
        old = _beside(place, "replaced")
        if replace:
            with suppress(FileNotFoundError):
                place.rename(old)
        try:
            work.rename(place)
        except OSError as error:
            if replace and error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another writer came between the two
                shutil.rmtree(old, ignore_errors=True)
                continue
            with suppress(FileNotFoundError):
                old.rename(place)
            raise
        return shutil.rmtree(old, ignore_errors=True)


def _exchange(left: Path, right: Path) -> bool:
    """Exchanges two names in one step; False where one is not there, or where the system cannot."""
    libc = ctypes.CDLL(None)
    names = os.fsencode(left), os.fsencode(right)
    if sys.platform == "darwin":
        swap = 2  # RENAME_SWAP
        return hasattr(libc, "renamex_np") and libc.renamex_np(*names, swap) == 0
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return hasattr(libc, "renameat2") and libc.renameat2(here, names[0], here, names[1], exchange) == 0


def flush_all(folder: Path) -> None:
    """Returns when nothing in a folder can be lost."""
    for parent, _, names in os.walk(folder):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))


def flush(path: Path) -> None:
    """Returns when a file's bytes, or the names in a folder, cannot be lost."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
