"""What is to become the next state of an index: changes add up here until they are committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import ids as ids_module
from lateint.calibration import Calibration
from lateint.changing import compaction, rebuilding
from lateint.changing.chosen import Kept, Some
from lateint.changing.encoders import Encoders, Residuals
from lateint.changing.rebuilding import Decoded, Rebuilt
from lateint.changing.sinks import Sink
from lateint.disk.manifest import INT, VERSION, Bundle, File, Manifest, Segment
from lateint.disk.segment_files import Rows
from lateint.disk.store import Arrays, MemoryStore
from lateint.fields.groups import attached
from lateint.fields.records import NOTHING, Given
from lateint.indexing import builder
from lateint.indexing.codec import Codec
from lateint.indexing.documents import Documents
from lateint.indexing.encoding import Stream
from lateint.state import State, deletion
from lateint.text.analyzer import Analyzer
from lateint.timings import Timings
from lateint_kernels.codes.building import HostOperators

MOST_TOKENS = 1 << 22  # of a segment that is added
WORK = 4  # times what an add adds, or LEAST_WORK, it may compact
LEAST_WORK = 1 << 15
DUPLICATES = ("raise", "replace", "skip")

Files = dict[str, File | Bundle]


class Draft:
    """A state and what was written for it.

    Each change either happens or raises and leaves the draft as it was.

    Attributes:
        state: with all changes so far.
        changed: whether there were any.
    """

    def __init__(self, state: State, codec: Codec, sink: Sink, encoders: Encoders) -> None:
        manifest = state.manifest
        if manifest.next_id is None and manifest.ids == INT:
            largest = [int(part.ids.at(np.arange(len(part.ids))).max(initial=-1)) for part in state.parts]
            manifest = replace(manifest, next_id=1 + max([-1, *largest]))
        manifest = replace(
            manifest,
            version=VERSION,
            generation=manifest.generation + 1,
            next_segment=manifest.segment_number,
            codec_crc32=codec.crc32 if manifest.codec_crc32 is None else manifest.codec_crc32,
        )
        self.state = State(manifest, state.arrays, state.parts)
        self.codec, self.sink, self.encoders = codec, sink, encoders
        self.changed = False

    def add(self, documents: Documents, ids: Any, on_duplicate: str, given: Given = NOTHING) -> None:
        """Appends documents, with what they are given besides.

        Raises:
            TypeError, ValueError: ids are of another kind, there already, or not one a document; or a token cannot be
                encoded.
        """
        self._check_dim(documents)
        given = replace(given, analyzer=self.state.manifest.analyzer)
        names = self._names(ids, len(documents.lengths))
        positions = self.state.ids.find(names if isinstance(names, np.ndarray) else ids_module.packed(names))
        known = np.flatnonzero(positions >= 0)
        if known.size and on_duplicate == "raise":
            raise ValueError(
                f"ids must be new, but {_plain(names[known[0]])!r} is in the index already; on_duplicate says what "
                "then: 'replace' or 'skip'"
            )
        if known.size and on_duplicate == "skip":
            new = np.flatnonzero(positions < 0)
            if not new.size:
                return
            documents, names, given = Some(documents, new), _taken(names, new), given.some(new)
        state = self.state
        if on_duplicate == "replace" and known.size:
            state = self._without(state, positions[known])
        self.state = self._encoded(state, documents, names, given)
        self.changed = True
        self._compact(max(LEAST_WORK, WORK * int(documents.lengths.sum())))

    def update(self, positions: NDArray[np.int64], documents: Documents | None, given: Given) -> None:
        """Replaces documents at different positions; what is not given stays. They are the last ones then.

        Args:
            documents: None: their codes are copied.

        Raises:
            ValueError: there are more documents or fewer, or a token cannot be encoded.
        """
        if not len(positions):
            return
        before, given = self.state, replace(given, analyzer=self.state.manifest.analyzer)
        numbers = np.searchsorted(before.firsts, positions, side="right") - 1
        kept = Kept(before, numbers, positions - before.firsts[numbers])
        state = self._without(before, positions)
        if documents is None:
            lengths, state = kept.lengths, self._copied(state, kept, given)
        else:
            self._check_dim(documents)
            if len(documents.lengths) != len(positions):
                raise ValueError(
                    f"ids must name each document once, got {len(positions)} ids for {len(documents.lengths)} documents"
                )
            found = before.ids.at(positions)
            names = found.tolist() if before.ids.strings else found
            lengths, state = documents.lengths, self._encoded(state, documents, names, given, kept)
        self.state, self.changed = state, True
        self._compact(max(LEAST_WORK, WORK * int(lengths.sum())))

    def delete(self, positions: NDArray[np.int64]) -> None:
        """Deletes the documents at these positions."""
        if len(positions):
            self.state = self._without(self.state, positions)
            self.changed = True

    def compact(self, *, full: bool) -> None:
        """Joins segments until there are few, or with ``full`` as few as can be."""
        if full:
            for first, last in reversed(compaction.full_runs(self.state.parts)):
                self._join(first, last)
        else:
            self._compact(None)

    def rebuild(self, documents: Documents | None, settings: builder.Settings) -> Rebuilt:
        """Encodes everything anew, with a new codec: documents that are those of the state, or, for None, their codes.

        Raises:
            ValueError: there are more documents or fewer, or they have no tokens.
        """
        state, before = self.state, self.codec
        source: Documents = Decoded(state, before) if documents is None else documents
        if len(source.lengths) != len(state):
            raise ValueError(f"source must hold the {len(state):,} documents of the index, got {len(source.lengths):,}")
        if not len(source.lengths) or not source.lengths.sum():
            raise ValueError("there is nothing to rebuild: the index holds no token")
        live = np.arange(len(state.ids)) if state.live is None else np.flatnonzero(state.live)
        numbers = np.searchsorted(state.firsts, live, side="right") - 1
        kept = Kept(state, numbers, live - state.firsts[numbers])
        found = state.ids.at(live)
        names = found.tolist() if state.ids.strings else found
        codec = builder.train(source, builder.plan(source, settings), HostOperators(settings.threads), Timings())
        folder = f"codec-{state.manifest.generation:06d}"
        files: Files = {}
        for name, array in codec.arrays.items():
            files |= self.sink.put_array(f"{folder}/{name}", array)
        manifest = replace(state.manifest, **codec.described, codec=folder, segments=())
        arrays = {f"{folder}/{name}": array for name, array in codec.arrays.items()}
        self.codec = codec
        try:
            empty = self._next(State(manifest, {}, []), [], files, arrays, manifest.segment_number)
            self.state = self._encoded(empty, source, names, NOTHING, kept)
        except BaseException:
            self.codec = before
            raise
        self.changed = True
        lost = rebuilding.error(source, self.state, codec)
        return Rebuilt(documents is None, lost, (len(before.centroids), len(codec.centroids)))

    def analyze(self, analyzer: Analyzer | None) -> None:
        """Makes terms of all texts; None: there are no terms any more. Segments without texts stay as they are."""
        if analyzer == self.state.manifest.analyzer:
            return
        before = self.state
        state = State(replace(before.manifest, analyzer=analyzer), before.arrays, before.parts)
        for part in before.parts:
            if "texts" not in part.fields.groups:
                continue
            number = [one.entry.name for one in state.parts].index(part.entry.name)
            live = range(part.entry.documents) if part.live is None else np.flatnonzero(part.live).tolist()
            given = Given(texts=[part.fields.text(row) for row in live], analyzer=analyzer)
            joined, *new = compaction.join([part], state.manifest.centroids)
            groups = attached(given, joined.groups())
            state = self._with_segment(state, number, number + 1, new, groups, part.entry.residual_norm)
        self.state, self.changed = state, True

    def calibrate(self, calibration: Calibration) -> None:
        """Keeps what was measured."""
        state = self.state
        self.state = State(replace(state.manifest, calibration=calibration), state.arrays, state.parts)
        self.changed = True

    def finished(self) -> State:
        """The state with its deletions written."""
        state, files = self.state, dict(self.state.manifest.files)
        for part in state.parts:
            deleted = part.entry.deleted
            if deleted is not None and f"{deleted.array}.npy" not in files:
                files |= self.sink.put_array(deleted.array, state.arrays[deleted.array])
        kept = _kept(state.manifest)
        files = {name: files[name] for name in sorted(files) if _belongs(name, kept)}
        manifest = replace(state.manifest, files=files, version=state.manifest.version_to_write)
        return State(manifest, state.arrays, state.parts)

    def _check_dim(self, documents: Documents) -> None:
        if documents.dim != self.codec.dim:
            raise ValueError(f"doc_embs must have dim {self.codec.dim} as the index has, got {documents.dim}")

    def _names(self, ids: Any, documents: int) -> NDArray[np.int64] | list[str]:
        manifest = self.state.manifest
        if ids is None:
            if manifest.next_id is None:
                raise ValueError("ids must be given, for those of this index are strings")
            if manifest.next_id + documents > 1 << 63:
                raise ValueError("ids must be given, for there is no larger int64 than those of this index")
            return np.arange(manifest.next_id, manifest.next_id + documents, dtype=np.int64)
        names = ids_module.check(ids, documents)
        if isinstance(names, np.ndarray) != (manifest.ids == INT):
            other = "int64" if isinstance(names, np.ndarray) else "strings"
            kind = "int64" if manifest.ids == INT else "strings"
            raise TypeError(f"ids must be {kind} as those of this index are, got {other}")
        return names

    def _encoded(
        self,
        state: State,
        documents: Documents,
        names: NDArray[np.int64] | list[str],
        given: Given,
        kept: Kept | None = None,
    ) -> State:
        """With documents at the end; ``kept``: where what they are not given comes from."""
        lengths = documents.lengths
        residuals = Residuals(self.codec)
        encoder = self.encoders.encoder(self.codec, residuals)
        stream = Stream(lengths, iter(documents.chunks(builder.CHUNK)), encoder.operators)
        for first, last in builder.cut_into_segments(lengths, MOST_TOKENS):
            store = MemoryStore()
            encoder.segment(lengths[first:last], stream, store, "new")
            found = {name.split("/")[1]: array for name, array in store.arrays.items()}
            lists = found.pop("list_offsets"), found.pop("list_documents")
            offsets = found.pop("offsets")
            tokens = {name: Rows.of(array) for name, array in found.items()}
            before = None if kept is None else compaction.of_groups(kept.pieces(first, last))
            groups = attached(given.part(first, last), before)
            new = compaction.segment_rows(offsets, lists, names[first:last], tokens)
            state = self._with_segment(state, len(state.parts), len(state.parts), new, groups, residuals.norm)
        stream.close()
        encoder.overflow.warn(int(lengths.sum()))
        if isinstance(names, np.ndarray):
            following = max(state.manifest.next_id or 0, ids_module.following(names) or 0)
            state = State(replace(state.manifest, next_id=following), state.arrays, state.parts)
        return state

    def _copied(self, state: State, kept: Kept, given: Given) -> State:
        """With documents at the end whose codes are copied."""
        for first, last in builder.cut_into_segments(kept.lengths, MOST_TOKENS):
            pieces = kept.pieces(first, last)
            parts = list({part.entry.name: part for part, *_ in pieces}.values())
            joined, *new = compaction.join(parts, state.manifest.centroids, pieces)
            groups = attached(given.part(first, last), joined.groups())
            norm, number = compaction.residual_norm(parts), len(state.parts)
            state = self._with_segment(state, number, number, new, groups, norm)
        return state

    def _with_segment(
        self,
        state: State,
        first: int,
        last: int,
        new: Any,
        groups: Mapping[str, Mapping[str, Rows]],
        norm: float | None,
    ) -> State:
        """A new segment in place of segments ``first:last``; ``new``: see `compaction.segment_rows`."""
        rows, lists, hashed = new
        rows = rows | {leaf: array for leaves in groups.values() for leaf, array in leaves.items()}
        number = state.manifest.segment_number
        name = f"segments/{number:06d}"
        files, arrays = self.sink.put(name, rows)
        documents, tokens = rows["offsets"].shape[0] - 1, rows["codes"].shape[0]
        entry = Segment(name, documents, tokens, lists=lists, hashed=hashed, residual_norm=norm, groups=tuple(groups))
        segments = [part.entry for part in state.parts]
        segments[first:last] = [entry] if documents else []
        return self._next(state, segments, files, arrays, number + 1)

    def _next(
        self, state: State, segments: list[Segment], files: Mapping[str, File | Bundle], arrays: Arrays, number: int
    ) -> State:
        manifest = replace(
            state.manifest,
            segments=tuple(segments),
            files={**state.manifest.files, **files},
            next_segment=number,
        )
        kept = _kept(manifest)
        held = {name: array for name, array in state.arrays.items() if _belongs(name, kept)}
        return State.of(manifest, held | arrays, state)

    def _without(self, state: State, positions: NDArray[np.int64]) -> State:
        """With the documents at these positions deleted."""
        segments, arrays = [part.entry for part in state.parts], {}
        numbers = np.searchsorted(state.firsts, positions, side="right") - 1
        for number in np.unique(numbers).tolist():
            part = state.parts[number]
            live = np.ones(part.entry.documents, np.uint8) if part.live is None else part.live.copy()
            live[positions[numbers == number] - state.firsts[number]] = 0
            # A name that no file has: those of a transaction are written when it ends.
            name = f"{part.entry.name}.deleted-{state.manifest.generation:06d}"
            deleted, arrays[name] = deletion(live, name)
            segments[number] = replace(part.entry, deleted=deleted)
        return self._next(state, segments, {}, arrays, state.manifest.segment_number)

    def _compact(self, most: int | None) -> None:
        left = compaction.MOST_TOKENS if most is None else most
        while (run := compaction.next_run(self.state.parts, left)) is not None:
            work = sum(part.tokens for part in self.state.parts[slice(*run)])
            self._join(*run)
            if most is not None:
                left -= work

    def _join(self, first: int, last: int) -> None:
        parts = self.state.parts[first:last]
        if not any(part.documents for part in parts):
            segments = [part.entry for part in self.state.parts]
            del segments[first:last]
            self.state = self._next(self.state, segments, {}, {}, self.state.manifest.segment_number)
        else:
            joined, *new = compaction.join(parts, self.state.manifest.centroids)
            groups, norm = attached(NOTHING, joined.groups()), compaction.residual_norm(parts)
            self.state = self._with_segment(self.state, first, last, new, groups, norm)
        self.changed = True


def _taken(names: NDArray[np.int64] | list[str], which: NDArray[np.int64]) -> NDArray[np.int64] | list[str]:
    return names[which] if isinstance(names, np.ndarray) else [names[i] for i in which.tolist()]


def _plain(name: Any) -> Any:
    return name.item() if isinstance(name, np.generic) else name


def _kept(manifest: Manifest) -> tuple[frozenset[str], frozenset[str]]:
    """Names of files and of folders that are those of a segment, of a deletion or of the codec."""
    segments = {segment.name for segment in manifest.segments}
    deletions = {segment.deleted.array for segment in manifest.segments if segment.deleted is not None}
    return frozenset(segments | deletions), frozenset(segments | {manifest.codec})


def _belongs(name: str, kept: tuple[frozenset[str], frozenset[str]]) -> bool:
    """Whether a file or an array is among them."""
    stem = name.removesuffix(".npy").removesuffix(".seg")
    folder, _, leaf = stem.rpartition("/")
    return stem in kept[0] or (folder in kept[1] and not leaf.startswith("deleted"))
