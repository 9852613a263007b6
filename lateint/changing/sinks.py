"""Where new segments go: into a file of the index, or nowhere, for an index in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from lateint.disk.commits import Commit
from lateint.disk.files import array_of
from lateint.disk.folder import Folder
from lateint.disk.manifest import Bundle, File
from lateint.disk.segment_files import Rows, Writer
from lateint.disk.store import Arrays


class Sink(Protocol):
    """Takes new arrays and gives them back as they are to be read."""

    def put(self, name: str, arrays: Mapping[str, Rows]) -> tuple[dict[str, File | Bundle], Arrays]:
        """The arrays of a segment: files of the manifest, and arrays by their full names."""

    def put_array(self, name: str, array: NDArray[Any]) -> dict[str, File | Bundle]:
        """One array with a file of its own."""


class Memory:
    """Keeps them."""

    def put(self, name: str, arrays: Mapping[str, Rows]) -> tuple[dict[str, File | Bundle], Arrays]:
        """In memory."""
        return {}, {f"{name}/{leaf}": rows.whole() for leaf, rows in arrays.items()}

    def put_array(self, name: str, array: NDArray[Any]) -> dict[str, File | Bundle]:
        """In memory, where it is."""
        return {}


class Files:
    """Writes them and maps what was written."""

    def __init__(self, commit: Commit) -> None:
        self.commit = commit

    def put(self, name: str, arrays: Mapping[str, Rows]) -> tuple[dict[str, File | Bundle], Arrays]:
        """In one file."""
        file, writer = f"{name}.seg", Writer(arrays)
        self._write(file, writer)
        bundle = writer.bundle
        with Folder(self.commit.folder) as folder:
            data = folder.mapped(file, bundle.bytes)
        found = {
            f"{name}/{leaf}": array_of(data, image, self.commit.folder / file, leaf, verify=False)
            for leaf, image in bundle.arrays.items()
        }
        return {file: bundle}, found

    def put_array(self, name: str, array: NDArray[Any]) -> dict[str, File | Bundle]:
        """In a .npy file."""
        file, writer = f"{name}.npy", Writer({"": Rows.of(array)})
        self._write(file, writer)
        return {file: writer.bundle.arrays[""]}

    def _write(self, file: str, writer: Writer) -> None:
        self.commit.make_folder(file.rpartition("/")[0])
        self.commit.write(file, writer.parts())
