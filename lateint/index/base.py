"""What an index holds: a snapshot that searches, where it is, and the encoder of texts."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.calibration import Calibration
from lateint.changing.encoders import Encoders
from lateint.changing.writing import Writing
from lateint.disk.disk import Disk
from lateint.encoders.batches import encoded_queries, is_one, is_text
from lateint.encoders.protocol import Encoder, adapted, check_same
from lateint.indexing.codec import Codec
from lateint.retrieval.queries import Queries, read
from lateint.snapshot import Snapshot
from lateint.text.analyzer import Analyzer


class Base:
    """What all the doors of `lateint.Index` look at: its state, and what can be asked of it without a search."""

    def __init__(
        self,
        snapshot: Snapshot,
        path: Path | None = None,
        build_seconds: Mapping[str, float] | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        self._snapshot, self.path, self._build_seconds = snapshot, path, dict(build_seconds or {})
        self._encoder: Encoder | None = None
        self.encoder = encoder
        self._remote: tuple[str, Path] | None = None  # a url, and the folder of local copies
        self._changing = threading.RLock()
        self._writing: Writing[Snapshot] | None = None
        self._encoders = Encoders()
        self._disk = Disk()

    @property
    def encoder(self) -> Encoder | None:
        """What encodes texts, of queries and of documents that are added. One that is set must be that of the index."""
        return self._encoder

    @encoder.setter
    def encoder(self, model: Any) -> None:
        encoder = None if model is None else adapted(model)
        if encoder is not None:
            check_same(encoder, self._snapshot.manifest.encoder)
        self._encoder = encoder

    @property
    def _encodes(self) -> bool:
        """Whether tokens come from texts, so that another text must have other tokens."""
        return self._encoder is not None or self._snapshot.manifest.encoder is not None

    @property
    def dim(self) -> int:
        """Components of a token."""
        return self._snapshot.manifest.dim

    @property
    def codec(self) -> Codec:
        """What tokens are compressed with; `build` takes it for other documents."""
        return self._snapshot.codec

    @property
    def analyzer(self) -> Analyzer | None:
        """What makes terms of texts; None: they are not searched."""
        return self._snapshot.manifest.analyzer

    @property
    def nbits(self) -> int:
        """Bits a component."""
        return self._snapshot.manifest.nbits

    @property
    def tokens(self) -> int:
        """Tokens of all documents, deleted ones included."""
        return self._snapshot.tokens

    @property
    def ids(self) -> NDArray[Any]:
        """``[n]``: the ids of all documents, in the order in which they were given."""
        return self._snapshot.ids.at(self._snapshot.live)

    @property
    def device(self) -> str:
        """Where searches run."""
        return str(self._snapshot.place)

    @property
    def generation(self) -> int:
        """How many commits there were between the build and what this index searches."""
        return self._snapshot.manifest.generation

    @property
    def calibration(self) -> Calibration | None:
        """What `calibrate` measured last; None: nothing."""
        return self._snapshot.manifest.calibration

    def __len__(self) -> int:
        return len(self._snapshot)

    def _queries(self, Q: Any, mask: Any = None) -> Queries:
        if not is_text(Q):
            return read(Q, self.dim, mask)
        if self._encoder is None:
            kept = self._snapshot.manifest.encoder
            which = "an encoder" if kept is None else f"its encoder {kept['name']!r}"
            raise ValueError(
                f"Q is text, and the index was opened without {which}: give encoder=, see lateint.encoders"
            )
        if mask is not None:
            raise ValueError("mask goes with tokens, and Q is text")
        found = encoded_queries(self._encoder, [Q] if is_one(Q) else Q)
        return read(found[0] if is_one(Q) else found, self.dim)

    def _one(self, Q: Any, what: str) -> NDArray[np.float32]:
        queries = self._queries(Q)
        if not queries.single:
            raise ValueError(f"{what} takes one query [Lq, dim], got a batch")
        return queries.tokens

    def _check_local(self) -> None:
        if self._remote is not None:
            raise ValueError(
                f"an index of a url cannot be changed: change a copy in a folder (snapshot) and push it to "
                f"{self._remote[0]}"
            )
