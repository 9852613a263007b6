"""Every call by which a writer changes an index on disk, in one place: tests put a disk there that fails or loses."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Data = bytes | memoryview


class Disk:
    """The disk as it is. What has not been flushed may be lost when the power is cut: a file's bytes until
    `flush`, the names in a folder until `flush_folder`."""

    def create(self, path: Path) -> int:
        """A new file to append to, by its descriptor; it must not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def append(self, file: int, data: Data) -> int:
        """Appends some of the bytes, from the front; returns how many."""
        return os.write(file, data)

    def flush(self, file: int) -> None:
        """Returns when the bytes of a file cannot be lost."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Ends a file."""
        os.close(file)

    def make_folder(self, path: Path) -> None:
        """A new folder."""
        path.mkdir()

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file another name in its folder; what had that name goes, in the same instant."""
        os.rename(old, new)

    def link(self, old: Path, new: Path) -> None:
        """A second name for a file."""
        os.link(old, new)

    def remove(self, path: Path) -> None:
        """Takes the name of a file away."""
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """Takes an empty folder away."""
        os.rmdir(path)

    def flush_folder(self, path: Path) -> None:
        """Returns when the names in a folder cannot be lost."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write(disk: Disk, path: Path, parts: Iterable[Data]) -> None:
    """Writes a new file and flushes it. If that fails, the file is removed."""
    file = disk.create(path)
    try:
        try:
            for part in parts:
                view = memoryview(part).cast("B")
                while len(view):
                    view = view[disk.append(file, view) :]
            disk.flush(file)
        finally:
            disk.close(file)
    except BaseException:
        with suppress(OSError):
            disk.remove(path)
        raise
