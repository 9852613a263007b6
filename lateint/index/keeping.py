"""The doors through which an index is copied and looked after."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from lateint.changing import copying
from lateint.changing.drift import Drift, measure
from lateint.changing.verification import Report, verify
from lateint.disk import remote, store
from lateint.index.base import Base


class Keeping(Base):
    """Copies of an index, and how it is."""

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the index to the folder ``path``."""
        state = self._snapshot.state
        with store.writing(Path(path).absolute(), overwrite=overwrite) as files:
            for name, array in state.arrays.items():
                store.put(files, name, array)
            files.commit(state.manifest)

    def snapshot(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """A second index at ``path``, of what is committed now; where it can be, its files are links to those here.

        Both can be changed afterwards: no file of an index ever is.
        """
        if self.path is None:
            self.save(path, overwrite=overwrite)
        else:
            copying.link(self.path, Path(path).absolute(), overwrite=overwrite)

    def push(self, url: str) -> None:
        """Copies the index, as it is committed now, to an object store: ``"s3://bucket/index"``, or any url of fsspec.

        Files that are there already are not copied again. The manifest comes last, so that whoever opens the url finds
        what was there before or all of this.

        Raises:
            ImportError: fsspec, or what it needs for this store, is not installed.
            FileExistsError: another index is at ``url``, or a later state of this one.
            FormatError: a file here is damaged.
        """
        if self.path is not None:
            remote.push(self.path, url)
            return
        with tempfile.TemporaryDirectory(prefix="lateint-") as folder:
            self.save(Path(folder, "index"))
            remote.push(Path(folder, "index"), url)

    def drift(self) -> Drift:
        """How well the codec fits the documents that are there now; see `lateint.changing.drift`."""
        snapshot = self._snapshot
        return measure(snapshot.state, snapshot.codec)

    @staticmethod
    def verify(path: str | os.PathLike[str]) -> Report:
        """Reads all of an index: every checksum, and all that docs/format.md says about its numbers.

        Raises:
            FileNotFoundError: there is nothing at ``path``.
        """
        return verify(Path(path).absolute())

    def stats(self) -> dict[str, Any]:
        """Sizes, and how long each part of the build took where this index was just built: plain numbers, fit for JSON.

        ``bytes_per_token`` adds up all files but the manifest, by part.
        """
        snapshot, sizes = self._snapshot, self._snapshot.state.sizes()
        tokens = max(1, self.tokens)
        return {
            "documents": len(self),
            "tokens": self.tokens,
            "dim": self.dim,
            "nbits": self.nbits,
            "codec": snapshot.codec.crc32 if (kept := snapshot.manifest.codec_crc32) is None else kept,
            "ids": snapshot.manifest.ids,
            "centroids": snapshot.manifest.centroids,
            "cells": snapshot.manifest.cells,
            "segments": len(snapshot.manifest.segments),
            "bytes": sum(sizes.values()),
            "bytes_per_token": {**{part: n / tokens for part, n in sizes.items()}, "all": sum(sizes.values()) / tokens},
            "build_seconds": self._build_seconds,
        }
