"""How far a build is, kept so that the next process goes on from there with the same bytes."""

from __future__ import annotations

import time
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk.manifest import INT, Manifest
from lateint.disk.resuming import ResumableStore
from lateint.disk.store import Store
from lateint.fields.records import Records
from lateint.indexing.codec import Codec
from lateint.indexing.documents import Documents
from lateint.indexing.encoding import Encoder
from lateint.version import __version__
from lateint_kernels import as_array

SECONDS = 30.0  # between two checkpoints
LOOKED_AT = 4096  # tokens by which documents are known again


class Checkpoints:
    """Those of one build, if its store can keep them.

    Attributes:
        codec: that of an earlier process; None: there was none, and the build begins.
        segment: the number of the segment to go on with; those before it are complete.
        ids: centroids of its tokens that are done.
        groups: of each segment before it.
    """

    def __init__(
        self, store: Store, documents: Documents, records: Records, settings: dict[str, Any], codec: Codec | None
    ) -> None:
        self.store = store if isinstance(store, ResumableStore) else None
        self.codec: Codec | None = None
        self.segment, self.ids = 0, np.empty(0, np.uint32)
        self.groups: list[tuple[str, ...]] = []
        self.overflow: tuple[int, float] = (0, 1.0)
        self._last = time.monotonic()
        if self.store is None:
            return
        found = self.store.begin(
            {
                "documents": _fingerprint(documents) | records.fingerprint(),
                "settings": {**settings, "codec": None if codec is None else codec.crc32},
                "lateint": __version__,
            }
        )
        if found is not None:
            manifest = Manifest(**found["codec"], segments=(), ids=INT)
            self.codec = Codec.of(manifest, {name: self.store.rows(name) for name in _CODEC})
            self.segment, self.overflow = found["segment"], (found["overflow"][0], found["overflow"][1])
            self.groups = [tuple(groups) for groups in found["groups"]]
            name = f"segments/{self.segment:06d}"
            if f"{name}/codes" in self.store.columns:
                self.ids = self._ids(name)

    def _ids(self, name: str) -> NDArray[np.uint32]:
        assert self.store is not None
        ids = self.store.rows(f"{name}/centroid_ids").astype(np.uint32)
        if f"{name}/centroid_high" in self.store.columns:
            ids |= self.store.rows(f"{name}/centroid_high").astype(np.uint32) << np.uint32(16)
        return ids

    def report(self, codec: Codec, encoder: Encoder, segment: int, done: int = 0, *, at_once: bool = False) -> None:
        """Makes a checkpoint if the last one is long ago; ``segment`` is being written, ``done`` tokens of it are."""
        if self.store is None or (not at_once and time.monotonic() - self._last < SECONDS):
            return
        overflow = [encoder.overflow.tokens, encoder.overflow.most]
        self.store.checkpoint(
            {"codec": codec.described, "segment": segment, "groups": self.groups, "overflow": overflow}
        )
        self._last = time.monotonic()


_CODEC = ("mean", "rotation", "permutation", "centroids", "cells", "cell_offsets")


def _fingerprint(documents: Documents) -> dict[str, Any]:
    """What tells documents from others, as far as a look at lengths and some tokens can."""
    tokens = as_array(documents.pilot(LOOKED_AT), "doc_embs")
    return {
        "count": len(documents.lengths),
        "dim": documents.dim,
        "dtype": str(tokens.dtype),
        "lengths_crc32": zlib.crc32(np.ascontiguousarray(documents.lengths, np.int64).tobytes()),
        "tokens_crc32": zlib.crc32(np.ascontiguousarray(tokens).tobytes()),
    }
