"""How an index on disk changes: one writer at a time, new files first, then one rename of one manifest.

A commit returns when nothing of it can be lost. Before that instant a power cut leaves the index as it was, or, once
the manifest has its name, as it is to be. What no manifest names is a leftover, which the next writer removes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lateint.disk.disk import Disk, write

LOCK = "lock"
# What a writer may leave, by its name in the folder.
OURS = re.compile(
    r"index\.json\.new|segments/.+|codec-\d+(/.+)?|(mean|rotation|permutation|centroids|cells|cell_offsets)\.npy"
)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
POLL = 0.01  # seconds between two looks at a lock


class LockedError(OSError):
    """Another writer holds the index."""


@contextmanager
def writing(folder: Path, *, timeout: float = 0) -> Iterator[None]:
    """Holds the lock of an index, so that nobody else writes to it.

    It is a file of its own, which stays there.

    The lock is the process's: when it dies, however it dies, it is free.

    Raises:
        LockedError: another writer holds it, and still does after ``timeout`` seconds; the message says who.
        OSError: the folder cannot be written to.
    """
    descriptor = _locked(folder, time.monotonic() + timeout)
    try:
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def replacing(folder: Path, *, timeout: float = 0) -> Iterator[None]:
    """Holds the lock of an index that another one is to take the place of, as a writer does.

    Where the lock cannot be written, nor could a writer.

    Raises:
        LockedError: see `writing`.
    """
    with ExitStack() as held:
        try:
            held.enter_context(writing(folder, timeout=timeout))
        except LockedError:
            raise
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
        yield


def _locked(folder: Path, deadline: float) -> int:
    while True:
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise said(error, folder, "nothing has changed") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(descriptor, folder / LOCK):
                return descriptor
            os.close(descriptor)  # of an index that was replaced meanwhile
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise LockedError(errno.EAGAIN, f"another writer holds this index: {holder}", str(folder)) from None
            time.sleep(POLL)
        except OSError:
            os.close(descriptor)
            raise


def _is(descriptor: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock and has not said yet who it is
        return "a process that has just begun"


FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def said(error: OSError, path: Path, what: str) -> OSError:
    """An error of the disk in a sentence that ends with what became of the index."""
    why = "the disk is full" if error.errno in FULL else error.strerror or str(error)
    return OSError(error.errno, f"cannot write the index: {why}; {what}", str(path))


class Commit:
    """New files of a folder under the lock, and the manifest that makes them count.

    Used as a context manager: if the block ends without `finish`, the new files go.
    """

    def __init__(self, disk: Disk, folder: Path) -> None:
        self.disk, self.folder = disk, folder
        self.new: list[Path] = []
        self.named = False  # the manifest has its name: the commit counts, if perhaps not for ever

    def __enter__(self) -> Commit:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.named:
            for path in self.new:
                with suppress(OSError):
                    self.disk.remove(path)

    def make_folder(self, name: str) -> None:
        """A folder for new files, if it is not there."""
        path = self.folder / name
        with self._saying():
            if not path.is_dir():
                self.disk.make_folder(path)
                self.disk.flush_folder(path.parent)

    def write(self, name: str, parts: Iterable[Any]) -> None:
        """A new file, flushed."""
        path = self.folder / name
        self.new.append(path)
        with self._saying():
            write(self.disk, path, parts)

    def finish(self, manifest: dict[str, Any], name: str) -> None:
        """Makes everything count and returns when it cannot be lost."""
        with self._saying():
            for folder in sorted({path.parent for path in self.new}):
                self.disk.flush_folder(folder)
            beside = self.folder / f"{name}.new"
            self.new.append(beside)
            write(self.disk, beside, [json.dumps(manifest, separators=(",", ":")).encode()])
            self.disk.rename(beside, self.folder / name)
            self.named = True
            self.disk.flush_folder(self.folder)

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = "the change is there, but a power cut may undo it" if self.named else "nothing has changed"
            raise said(error, self.folder, what) from error


def clear(disk: Disk, folder: Path, names: Iterable[str]) -> None:
    """Removes what no manifest names, as far as that goes; ``names`` are the files that the manifest does."""
    keep = set(names)
    for parent, folders, leaves in os.walk(folder, topdown=False):
        within = os.path.relpath(parent, folder).replace(os.sep, "/") + "/"
        prefix = "" if within == "./" else within
        gone = [leaf for leaf in leaves if OURS.fullmatch(prefix + leaf) and prefix + leaf not in keep]
        with suppress(OSError):
            for leaf in gone:
                disk.remove(Path(parent, leaf))
            if len(gone) == len(leaves) and not folders and OURS.fullmatch(prefix.rstrip("/")):
                disk.remove_folder(Path(parent))
