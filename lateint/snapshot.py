"""One state of an index and the engine that searches it, which do not change: what a search holds."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.arguments import fraction
from lateint.calibration import Calibration, Choice
from lateint.changing import calibrating
from lateint.disk.manifest import FormatError, Manifest
from lateint.disk.store import Arrays
from lateint.documents import Documents
from lateint.filtering import resolving
from lateint.filtering.tree import Tree
from lateint.ids import Ids, listed
from lateint.indexing.codec import Codec
from lateint.retrieval.limits import fitting
from lateint.retrieval.queries import Queries
from lateint.retrieval.searching import AnyEngine
from lateint.retrieval.selection import Selection
from lateint.retrieval.texts import BM25, SPARSE, Words
from lateint.state import State, out_of_range, same_codec
from lateint.text.analyzer import Analyzer
from lateint.warning import warn
from lateint_kernels.codes.engines import engine
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.devices import HOST, Place
from lateint_kernels.text.engine import SparseEngine, Terms, TextEngine

KEPT, KEPT_BYTES = 64, 1 << 26  # filters whose documents are known, and what these may take


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state, and the engine that searches it.

    Attributes:
        everything: the documents that are not deleted.
        place: where the engine is.
    """

    state: State
    codec: Codec
    everything: Selection
    engine: AnyEngine
    place: Place
    _filtered: dict[Tree, Selection] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @classmethod
    def of(cls, manifest: Manifest, arrays: Arrays, place: Place = HOST) -> Snapshot:
        """Raises what `lateint_kernels.codes.engines.engine` raises."""
        state = State.of(manifest, arrays)
        codec = Codec.of(manifest, arrays)
        _check(state, place)
        made = engine(_codec_arrays(codec), _segments(state), place)
        return cls(state, codec, _everything(state), made, place)

    def followed_by(self, state: State) -> Snapshot:
        """That of a later state of the same index."""
        _check(state, self.place, self.state)
        codec = self.codec if same_codec(state, self.state) else Codec.of(state.manifest, state.arrays)
        if codec is self.codec:
            made = self.engine.with_segments(_segments(state))
        else:
            made = engine(_codec_arrays(codec), _segments(state), self.place)
        return Snapshot(state, codec, _everything(state), made, self.place)

    def __len__(self) -> int:
        return len(self.state)

    @property
    def manifest(self) -> Manifest:
        """That of the state."""
        return self.state.manifest

    @property
    def arrays(self) -> Arrays:
        """Those of the state."""
        return self.state.arrays

    @property
    def ids(self) -> Ids:
        """Those of the state."""
        return self.state.ids

    @property
    def tokens(self) -> int:
        """Of all documents, deleted ones included."""
        return sum(segment.tokens for segment in self.manifest.segments)

    @property
    def live(self) -> NDArray[np.int64]:
        """Positions of the documents that are not deleted."""
        live = self.state.live
        return np.arange(len(self.ids)) if live is None else np.flatnonzero(live)

    @cached_property
    def documents(self) -> Documents:
        """What it keeps of them besides tokens."""
        return Documents(self.state)

    @property
    def _analyzer(self) -> Analyzer:
        if self.manifest.analyzer is None:
            raise ValueError("text needs an index whose texts are searched: build it with texts= and text_search=True")
        return self.manifest.analyzer

    def words(self, texts: Iterable[str], single: bool) -> Words:
        """The words of texts, as `lateint.retrieval.texts.read` gives them, and the engine that finds them.

        Raises:
            ValueError: see `text_engine`.
            ImportError: see `lateint.Analyzer`.
        """
        analyzer = self._analyzer
        return Words(self.text_engine, [analyzer.query(text) for text in texts], single, BM25)

    @cached_property
    def text_engine(self) -> TextEngine:
        """What searches texts; it is made when it is first asked for.

        Raises:
            ValueError: texts are not searched.
        """
        analyzer = self._analyzer
        segments = [part.fields.postings for part in self.state.parts]
        return TextEngine(segments, self.state.live, k1=analyzer.k1, b=analyzer.b)

    def vectors(self, queries: Sequence[Terms], single: bool) -> Words:
        """Sparse vectors, as `lateint.retrieval.texts.read_vectors` gives them, and the engine that finds them.

        Raises:
            ValueError: no document has a sparse vector.
        """
        return Words(self.sparse_engine, queries, single, SPARSE)

    @cached_property
    def sparse_engine(self) -> SparseEngine:
        """What searches sparse vectors; it is made when it is first asked for.

        Raises:
            ValueError: no document has one.
        """
        if not any(part.has_vectors for part in self.state.parts):
            raise ValueError(
                "sparse needs an index whose documents have sparse vectors: build it, or add, with sparse="
            )
        return SparseEngine([part.fields.sparse for part in self.state.parts], self.state.live)

    def subset(self, ids: Any) -> Selection:
        """The documents of these ids, or of a mask ``[n]`` in the order of ids.

        Raises:
            UnknownIdError: one of the ids is not there.
            ValueError: the mask is of another length.
        """
        chosen = np.zeros(len(self.ids), np.uint8)
        if getattr(ids, "dtype", None) == np.dtype(bool):
            if ids.shape != (len(self),):
                raise ValueError(f"subset must be a mask of the {len(self)} documents, got {ids.shape}")
            chosen[self.live[ids]] = 1
        else:
            chosen[self.ids.positions(ids, "subset")] = 1
        return self._selection(chosen)

    def filtered(self, condition: Any, params: Any = None) -> Selection:
        """The documents for which a condition holds; the last few are kept.

        Raises:
            TypeError, ValueError: see `lateint.filtering.resolving`.
        """
        tree = resolving.read(condition, params)
        with self._lock:
            found = self._filtered.pop(tree, None)
            if found is not None:
                self._filtered[tree] = found  # the last one is the newest
                return found
        found = self._selection(resolving.resolve(tree, self.state))
        with self._lock:
            self._filtered[tree] = found
            while len(self._filtered) > KEPT or len(self._filtered) * len(self.ids) > KEPT_BYTES:
                self._filtered.pop(next(iter(self._filtered)))
        return found

    @cached_property
    def stale(self) -> str | None:
        """Why what was calibrated is no longer so; None: it still is."""
        calibration = self.manifest.calibration
        return None if calibration is None else calibrating.stale(calibration, self.state, self.codec)

    def calibrated(self, queries: Queries | None, ks: list[int], n: int, *, threads: int) -> Calibration:
        """What searches of this snapshot miss; see `lateint.changing.calibrating.calibrate`."""
        return calibrating.calibrate(self.state, self.codec, self.engine, queries, ks, n, threads=threads)

    def choose(self, recall: Any, k: int) -> Choice:
        """Settings that hold a recall for the best ``k``; with a warning, some with more, if that is not sure any more.

        Raises:
            TypeError, ValueError: it is no recall, or that cannot be known.
        """
        goal, calibration = fraction(recall, "recall"), self.manifest.calibration
        if calibration is None:
            raise ValueError("recall needs a calibrated index, and this one is not: call calibrate(queries) first")
        choice = calibration.choose(goal, k, higher=0 if self.stale is None else 1)
        if self.stale is not None:
            warn(f"recall {goal:g} may not be reached: {self.stale}; call calibrate(queries) again")
        limits = choice.limits and fitting(choice.limits, self.manifest.centroids, len(self))
        return replace(choice, k=min(choice.k, max(1, len(self))), limits=limits)

    def _selection(self, chosen: NDArray[np.uint8]) -> Selection:
        chosen.flags.writeable = False  # so that a device may keep it
        return Selection(self.everything.offsets, self.everything.live, chosen, self.everything)

    def decoded(self, id: Any) -> NDArray[np.uint8]:
        """The tokens of a document as bytes ``[Ld, width]``.

        Raises:
            UnknownIdError: there is none.
            FormatError: the index is damaged, in a part that was not verified.
        """
        position = int(self.ids.positions([id], "id")[0])
        number = int(np.searchsorted(self.state.firsts, position, side="right")) - 1
        local = position - int(self.state.firsts[number])
        first, last = (int(offset) for offset in self.state.parts[number].arrays.offsets[local : local + 2])
        part = self.state.parts[number]
        if not 0 <= first <= last <= part.entry.tokens:
            raise FormatError(f"{part.entry.name}/offsets must not decrease; the index is damaged")
        return self.engine.decode(number, first, last - first)


class Subset:
    """Ids or a mask, and which documents these are in one state of an index; see `lateint.Index.subset`."""

    def __init__(self, ids: Any) -> None:
        self._mask = getattr(ids, "dtype", None) == np.dtype(bool)
        self._ids = np.array(ids) if self._mask else listed(ids, "subset")
        self._found: tuple[State, Selection] | None = None

    def of(self, snapshot: Snapshot) -> Selection:
        """The documents in this state.

        Raises:
            UnknownIdError: one of the ids is not there.
            ValueError: it is a mask of the documents of another state.
        """
        found = self._found
        if found is None or found[0] is not snapshot.state:
            if found is not None and self._mask:
                raise ValueError("subset is a mask of documents of an index that has changed; make it again")
            self._found = found = snapshot.state, snapshot.subset(self._ids)
        return found[1]


def _check(state: State, place: Place, before: State | None = None) -> None:
    """Numbers that a device would follow anywhere; the host's engine looks out for itself."""
    if place.on_host:
        return
    known = set() if before is None else {id(part.arrays) for part in before.parts}
    for part in state.parts:
        if id(part.arrays) not in known and (wrong := out_of_range(part, state.manifest.centroids)):
            raise FormatError(f"{wrong}; the index is damaged")


def _everything(state: State) -> Selection:
    return Selection([part.arrays.offsets for part in state.parts], state.live)


def _segments(state: State) -> list[SegmentArrays]:
    """Those of the state, and one of no documents where there is none: an engine has one at least."""
    if state.parts:
        return [part.arrays for part in state.parts]
    manifest = state.manifest
    scales = np.empty(0, np.uint8) if manifest.nbits < 8 else None
    high = np.empty(0, np.uint8) if manifest.centroids > 1 << 16 else None
    return [
        SegmentArrays(
            np.zeros(1, np.int64),
            np.empty((0, manifest.width * manifest.nbits // 8), np.uint8),
            scales,
            np.empty(0, np.uint16),
            high,
            np.zeros(1, np.int64),
            np.empty(0, np.uint32),
            np.empty(0, np.uint32),
        )
    ]


def _codec_arrays(codec: Codec) -> CodecArrays:
    rotation, centroids = codec.rotation, codec.centroids
    return CodecArrays(
        rotation.mean,
        rotation.blocks,
        rotation.permutation,
        centroids.rows,
        centroids.cells,
        centroids.cell_offsets,
        rotation.step,
        codec.nbits,
    )
