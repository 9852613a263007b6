"""A folder of arrays that a killed process left, and that the next one goes on with where the last checkpoint was.

``build.json`` says what is being built, how far it is, and for each file the bytes that are known to be on the disk and
their checksum. What a file has beyond them is cut off when the work is taken up.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk import store
from lateint.disk.files import HEADER_BYTES, Column
from lateint.disk.manifest import Manifest
from lateint.disk.store import FolderStore, Rows
from lateint.disk.whole import flush, flush_all
from lateint.warning import warn

PROGRESS = "build.json"


def placing(path: Path, *, overwrite: bool) -> AbstractContextManager[ResumableStore]:
    """As `lateint.disk.store.writing`, but what is done stays beside ``path`` when the process is stopped or killed."""
    return store.placing(path, ResumableStore, overwrite=overwrite, unfinished=PROGRESS)


class ResumableStore(FolderStore):
    """A `FolderStore` with checkpoints."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._build: dict[str, Any] = {}
        self._flushed: set[str] = set()

    def begin(self, build: dict[str, Any]) -> Any:
        """Takes up what a killed process left of the same ``build``, which is plain JSON.

        Returns:
            What its last `checkpoint` was called with; None: nothing, for there is none, it is of another build, or it
            is damaged. Then the folder is empty.
        """
        self._build = build
        try:
            found = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            if different := [key for key in build if found["build"].get(key) != build[key]]:
                raise _StartOver(f"it has other {' and '.join(different)}")
            for name, entry in found["files"].items():
                self.columns[name] = self._reopened(name, entry)
        except FileNotFoundError:
            self._clear()
            return None
        except _StartOver as reason:
            self._clear()
            warn(f"an unfinished build is not taken up, for {reason}; this one starts from the beginning")
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            self._clear()
            warn(f"an unfinished build is not taken up, for its {PROGRESS} is damaged; this one starts anew")
            return None
        self._remove_others()
        return found["progress"]

    def _reopened(self, name: str, entry: dict[str, Any]) -> Column:
        path = self.folder / f"{name}.npy"
        try:
            with path.open("r+b") as stream:
                crc, left = 0, int(entry["bytes"])
                while left and (block := stream.read(min(left, 1 << 22))):
                    crc, left = zlib.crc32(block, crc), left - len(block)
                if left or crc != entry["crc32"]:
                    raise _StartOver(f"{name}.npy is damaged")
                stream.truncate(entry["bytes"])
        except FileNotFoundError:
            raise _StartOver(f"{name}.npy is missing") from None
        return Column.going_on(path, np.dtype(entry["dtype"]), tuple(entry["shape"]), entry["bytes"], crc)

    def _clear(self) -> None:
        for column in self.columns.values():
            column.close()
        self.columns = {}
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _remove_others(self) -> None:
        """Files that were begun after the checkpoint."""
        keep = {self.folder / f"{name}.npy" for name in self.columns} | {self.folder / PROGRESS}
        for path in [path for path in self.folder.rglob("*") if path.is_file()]:
            if path not in keep:
                path.unlink()

    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Rows:
        """Begins the file ``name``.npy, or goes on with it."""
        if name not in self.columns:
            return super().create(name, dtype, shape)
        column = self.columns[name]
        assert (column.dtype, column.shape) == (np.dtype(dtype), shape), f"{name} was {column.dtype} {column.shape}"
        return column

    def rows(self, name: str) -> NDArray[Any]:
        """The rows of an array that were written so far, in memory."""
        column = self.columns[name]
        column.stream.flush()
        data = np.fromfile(column.path, column.dtype, offset=HEADER_BYTES)
        return data.reshape(-1, *column.shape[1:])

    def checkpoint(self, progress: Any) -> None:
        """What was written so far, and ``progress``, can no longer be lost, and `begin` will find it."""
        entries, folders = {}, {self.folder}
        for name, column in self.columns.items():
            if name not in self._flushed:
                column.flush()
                flush(column.path)
                folders.add(column.path.parent)
            if column.complete:
                self._flushed.add(name)
            entries[name] = column.entry.to_json()
        for folder in folders:
            flush(folder)
        beside = self.folder / f"{PROGRESS}.new"
        beside.write_text(json.dumps({"build": self._build, "progress": progress, "files": entries}), encoding="utf-8")
        flush(beside)
        os.replace(beside, self.folder / PROGRESS)
        flush(self.folder)

    def commit(self, manifest: Manifest) -> None:
        """Ends all files, writes the manifest, and, once all is flushed, gives up the checkpoint."""
        super().commit(manifest)
        flush_all(self.folder)
        (self.folder / PROGRESS).unlink(missing_ok=True)


class _StartOver(Exception):
    """Why."""
