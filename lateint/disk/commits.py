"""How an index on disk changes: one writer at a time, new files first, then one rename of one manifest.

A commit returns when nothing of it can be lost. Before that instant a power cut leaves the index as it was, or, once the
manifest has its name, as it is to be. What no manifest names is a leftover, which the next writer removes.
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
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lateint.disk.disk import Disk, write

LOCK = "lock"
OURS = re.compile(r"index\.json\.new|segments/.+|codec-\d+/.+")  # what a writer may leave, by its name in the folder
POLL = 0.01  # seconds between two looks at a lock


class LockedError(OSError):
    """Another writer holds the index."""


@contextmanager
def writing(folder: Path, *, timeout: float = 0) -> Iterator[None]:
    """Holds the lock of an index, so that nobody else writes to it.

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


def _locked(folder: Path, deadline: float) -> int:
    while True:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
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
        if not path.is_dir():
            self.disk.make_folder(path)
            self.disk.flush_folder(path.parent)

    def write(self, name: str, parts: Iterable[Any]) -> None:
        """A new file, flushed."""
        path = self.folder / name
        self.new.append(path)
        write(self.disk, path, parts)

    def finish(self, manifest: dict[str, Any], name: str) -> None:
        """Makes everything count and returns when it cannot be lost."""
        for folder in sorted({path.parent for path in self.new}):
            self.disk.flush_folder(folder)
        beside = self.folder / f"{name}.new"
        self.new.append(beside)
        write(self.disk, beside, [json.dumps(manifest, separators=(",", ":")).encode()])
        self.disk.rename(beside, self.folder / name)
        self.named = True
        self.disk.flush_folder(self.folder)


def clear(disk: Disk, folder: Path, names: Iterable[str]) -> None:
    """Removes what no manifest names, as far as that goes; ``names`` are the files that the manifest does."""
    keep = set(names)
    for parent, _, leaves in os.walk(folder):
        for leaf in leaves:
            name = os.path.relpath(os.path.join(parent, leaf), folder).replace(os.sep, "/")
            if OURS.fullmatch(name) and name not in keep:
                with suppress(OSError):
                    disk.remove(folder / name)
        if parent != str(folder) and not leaves and Path(parent).name != "segments":
            with suppress(OSError):
                os.rmdir(parent)
