"""The doors through which an index is changed, each a commit, and those by which it takes up what others changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from lateint.arguments import ascending, positive, thread_count
from lateint.calibration import Calibration
from lateint.changing.draft import DUPLICATES, Draft
from lateint.changing.rebuilding import Rebuilt
from lateint.changing.writing import newer, writing
from lateint.disk import remote
from lateint.encoders.batches import given_or_encoded
from lateint.fields.records import given
from lateint.filtering import resolving
from lateint.ids import listed
from lateint.index.base import Base
from lateint.indexing import builder, documents
from lateint.text.analyzer import Analyzer

log = logging.getLogger(__package__)


class Changing(Base):
    """What changes an index."""

    def add(
        self,
        doc_embs: Any = None,
        *,
        texts: Any = None,
        lengths: Any = None,
        mask: Any = None,
        ids: Any = None,
        metadata: Any = None,
        sparse: Any = None,
        on_duplicate: str = "raise",
        allow_empty: bool = False,
    ) -> None:
        """Appends documents, with the codec that the index has. When this returns, they cannot be lost.

        Args:
            doc_embs, lengths, mask, texts, metadata, sparse, allow_empty: as in `build`; texts without ``doc_embs`` are
                encoded by `encoder`.
            ids: ``[n]``, of the kind that the index has; None: numbers that follow the largest that there ever was.
            on_duplicate: what happens to a document whose id is there: ``"raise"`` refuses the call, ``"replace"``
                deletes the old document, ``"skip"`` leaves out the new one.

        Raises:
            TypeError, ValueError: as `build`, or an id that is there already. Nothing has changed then.
            LockedError: another process or `Index` is writing; the message says who, and since when.
            OSError: the disk cannot be written.
        """
        if on_duplicate not in DUPLICATES:
            raise ValueError(f"on_duplicate must be one of {', '.join(DUPLICATES)}, got {on_duplicate!r}")
        doc_embs, texts = given_or_encoded(doc_embs, texts, self.encoder)
        source = documents.read(doc_embs, lengths, mask=mask, allow_empty=allow_empty, spool=None)
        besides = given(texts, metadata, len(source.lengths), sparse)
        with self._draft() as draft:
            draft.add(source, ids, on_duplicate, besides)

    def update(
        self,
        ids: Iterable[Any],
        doc_embs: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        texts: Any = None,
        metadata: Any = None,
        sparse: Any = None,
        allow_empty: bool = False,
    ) -> None:
        """Replaces what is given of documents, in one step; they then are the last ones in the order of documents.

        Args:
            ids: of different documents.
            doc_embs, lengths, mask, texts, metadata, sparse, allow_empty: as in `build`; what is None stays as it is.
                Texts alone are encoded where the index was built by an encoder; elsewhere codes are copied. A text,
                metadata or a vector that is None takes away what a document had.

        Raises:
            UnknownIdError: a KeyError that names an id that is not there.
            TypeError, ValueError, LockedError, OSError: as `add`.
        """
        names = listed(ids, "ids")
        if doc_embs is None and texts is None and metadata is None and sparse is None:
            raise ValueError("update needs doc_embs, texts, metadata or sparse, got none of them")
        for name, value in (("lengths", lengths), ("mask", mask)):
            if doc_embs is None and value is not None:
                raise ValueError(f"{name} goes with doc_embs, which are not given")
        if doc_embs is None and texts is not None and self._encodes:
            doc_embs, texts = given_or_encoded(doc_embs, texts, self.encoder)
        source = None
        if doc_embs is not None:
            source = documents.read(doc_embs, lengths, mask=mask, allow_empty=allow_empty, spool=None)
        besides = given(texts, metadata, len(names), sparse)
        with self._draft() as draft:
            draft.update(draft.state.ids.different(names, "ids"), source, besides)

    def delete(
        self, ids: Iterable[Any] | None = None, *, filter: Any = None, params: Mapping[str, Any] | None = None
    ) -> int:
        """Deletes documents; returns how many.

        Args:
            ids: of the documents.
            filter, params: instead of ids, a condition on metadata, see `search`; it is looked up under the lock, so
                that it is of the documents that are there when they are deleted.

        Raises:
            UnknownIdError: a KeyError that names an id that is not there. Nothing has changed then.
            FilterError, FieldError: see `search`.
            LockedError, OSError: as `add`.
        """
        if (ids is None) == (filter is None):
            raise ValueError("delete needs ids or filter, and not both")
        names = None if ids is None else listed(ids, "ids")
        tree = None if filter is None else resolving.read(filter, params)
        with self._draft() as draft:
            if tree is None:
                positions = np.unique(draft.state.ids.positions(names or [], "ids"))
            else:
                positions = np.flatnonzero(resolving.resolve(tree, draft.state))
            draft.delete(positions)
        return len(positions)

    def compact(self, *, full: bool = False) -> None:
        """Joins small segments, and those that many documents were deleted from; codes are copied, never made again.

        Searches find the same documents with the same scores, faster. `add` does some of this; the rest is done here.

        Args:
            full: all segments become one (of at most 67 M tokens each), which takes the least room.
        """
        with self._draft() as draft:
            draft.compact(full=full)

    @contextmanager
    def transaction(self, *, timeout: float = 0) -> Iterator[None]:
        """One commit for all changes in the block: they are there together when it ends, or, if it raises, none is.

        Meanwhile, searches find what was there before, also those of this index.

        Args:
            timeout: seconds to wait for another writer.
        """
        with self._draft(timeout):
            yield

    def refresh(self) -> bool:
        """Takes up what others have committed since; returns whether there was anything.

        Searches that run meanwhile go on with what they have. Only what is new is read, and copied to a device.
        """
        if self.path is None and self._remote is None:
            return False
        with self._changing:
            if self._remote is None:
                assert self.path is not None
                state = newer(self.path, self._snapshot.state)
            else:
                with remote.copied(*self._remote) as folder:
                    state = newer(folder, self._snapshot.state)
            if state is not None:
                self._snapshot = self._snapshot.followed_by(state)
        return state is not None

    def rebuild(
        self,
        source: Any = None,
        *,
        lengths: Any = None,
        ncentroids: int | None = None,
        seed: int = 0,
        max_ram: int | None = None,
        allow_empty: bool = False,
        threads: int | None = None,
    ) -> Rebuilt:
        """Learns a new codec for the documents that are there, and encodes them with it: scores change.

        Args:
            source, lengths, allow_empty: their embeddings, in the order of `ids`, as in `build`; None: they are made of
                the codes, so that the errors of both encodings add up. The return value says how much that is.
            ncentroids, seed, max_ram, threads: as in `build`.

        Raises:
            TypeError, ValueError: as `build`, or ``source`` has not the documents of the index. Nothing has changed.
            LockedError, OSError: as `add`.
        """
        settings = builder.checked(
            nbits=self.nbits, ncentroids=ncentroids, seed=seed, max_ram=max_ram, threads=threads, progress=False
        )
        given = None if source is None else documents.read(source, lengths, allow_empty=allow_empty, spool=None)
        with self._draft() as draft:
            return draft.rebuild(given, settings)

    def set_text_search(self, text_search: bool | Analyzer = True) -> None:
        """Has searches find the texts that are there by their words, or by other words than before; in one commit.

        Codes are copied, and nothing is encoded.

        Args:
            text_search: as in `build`. False: texts are kept, but not searched any more.

        Raises:
            TypeError, ValueError, ImportError: as `build`.
            LockedError, OSError: as `add`.
        """
        analyzer = Analyzer.of(text_search)
        with self._draft() as draft:
            draft.analyze(analyzer)

    def calibrate(
        self, queries: Any = None, *, k: int | Iterable[int] = (10, 100), n: int = 400, threads: int | None = None
    ) -> Calibration:
        """Measures what searches of growing cost find of what the exhaustive scan finds, and keeps it with the index.

        Searches then take ``recall=0.99`` instead of settings: docs/recall.md. Others may write in the meantime. It is
        the same on every machine and device.

        Args:
            queries: such as will be asked, as in `search`; none that were used to choose settings. None: excerpts of
                documents, which real queries need not be like.
            k: how many of the best documents searches will ask for; one between two of these is searched for like the
                larger one.
            n: at most so many queries are asked, chosen at random, but always the same. A recall of 0.99 needs 99.

        Raises:
            TypeError, ValueError: a query as in `search`, or there is nothing to find.
            LockedError, OSError: as `add`.
        """
        ks, most, workers = ascending(k, "k"), positive(n, "n"), thread_count(threads)
        asked = None if queries is None else self._queries(queries)
        self._check_local()
        self.refresh()
        calibration = self._snapshot.calibrated(asked, ks, most, threads=workers)
        with self._draft() as draft:
            draft.calibrate(calibration)
        return calibration

    @contextmanager
    def _draft(self, timeout: float = 0) -> Iterator[Draft]:
        self._check_local()
        with self._changing:
            if self._writing is not None:  # of a transaction, which commits
                yield self._writing.draft
                return
            snapshot, one = self._snapshot, None
            try:
                with writing(
                    snapshot.state,
                    snapshot.codec,
                    self.path,
                    self._encoders,
                    snapshot.followed_by,
                    disk=self._disk,
                    timeout=timeout,
                ) as one:
                    self._writing = one
                    yield one.draft
            finally:
                self._writing = None
                if one is not None and one.committed is not None:
                    self._snapshot = one.committed
                    log.info("changed %s: generation %d", self, self.generation)
