"""The index: the doors through which it is built, opened and searched, where what users pass is checked."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from lateint.arguments import alone, ascending, positive, thread_count
from lateint.calibration import Calibration
from lateint.changing import copying, merging
from lateint.changing.draft import DUPLICATES, Draft
from lateint.changing.drift import Drift, measure
from lateint.changing.encoders import Encoders
from lateint.changing.rebuilding import Rebuilt
from lateint.changing.verification import Report, check_groups, verify
from lateint.changing.writing import Writing, newer, writing
from lateint.converting import reading
from lateint.disk import remote, resuming, store
from lateint.disk.disk import Disk
from lateint.documents import Document, Documents
from lateint.encoders.batches import encoded_queries, is_one, is_text, kept_and_encoded, words_of
from lateint.encoders.protocol import Encoder, adapted, check_same, described
from lateint.fields.records import Records, given
from lateint.filtering import resolving
from lateint.ids import UnknownIdError, listed
from lateint.indexing import builder, documents
from lateint.indexing.codec import Codec
from lateint.retrieval import searching
from lateint.retrieval import texts as text_queries
from lateint.retrieval.answering import Asked, answer
from lateint.retrieval.fusion import Fusion
from lateint.retrieval.hits import Explanation, Hits
from lateint.retrieval.limits import limits
from lateint.retrieval.planning import SCAN, Plan
from lateint.retrieval.queries import ManyQueries, OneQuery, Queries, read
from lateint.retrieval.selection import Selection, by_query
from lateint.retrieval.texts import Found
from lateint.snapshot import Snapshot, Subset
from lateint.state import State
from lateint.text.analyzer import Analyzer
from lateint_kernels.devices import HOST, Place

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lateint.retrieval.settings import RerankSettings, SearchSettings

log = logging.getLogger(__name__)


class Index:
    """Documents as residual codes, searched by late interaction: ``S(q, d) = sum_i max_j <q_i, d_j>``.

    Make one with `Index.build` or `Index.open`. Any number of threads may search it at once, while another changes it:
    a search sees the documents that were there when it began. docs/living.md says what holds when an index changes.

    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.standard_normal((20, 16)) for _ in range(50)]
    >>> documents = [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in documents]
    >>> index = Index.build(documents, nbits=8, progress=False)
    >>> index.search(documents[7][:5], k=3)[0].id
    7
    >>> 7 in index, 50 in index
    (True, False)
    """

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

    @classmethod
    def build(
        cls,
        doc_embs: Any = None,
        path: str | os.PathLike[str] | None = None,
        *,
        texts: Any = None,
        encoder: Any = None,
        lengths: Any = None,
        mask: Any = None,
        ids: Any = None,
        metadata: Any = None,
        sparse: Any = None,
        text_search: bool | Analyzer = False,
        nbits: int | None = None,
        ncentroids: int | None = None,
        seed: int | None = None,
        codec: Codec | None = None,
        pool: int | None = None,
        max_ram: int | None = None,
        allow_empty: bool = False,
        overwrite: bool = False,
        resume: bool = False,
        threads: int | None = None,
        progress: bool = True,
        device: Any = None,
        device_memory: int | None = None,
    ) -> Index:
        """Compresses documents into an index; the same input and seed give the same bytes on any number of threads.

        Args:
            doc_embs: the documents' token embeddings, float32, float16 or bfloat16, as numpy or torch arrays or
                anything with DLPack: a list of ``[Ld, dim]``; one ``[T, dim]`` array with ``lengths``, memory-mapped or
                not; a padded ``[n, L, dim]`` (with ``lengths``); a `Ragged`; or an iterable of documents, of
                (tokens ``[T, dim]``, lengths) pairs, or of `Ragged`, which is read three times. An iterator that runs
                only once is written to disk first, next to ``path``, or kept in memory where there is no path; with a
                ``codec`` it is read once and nothing of it is kept.
            path: the folder to write; None keeps the index in memory.
            texts: a string for each document, or None for one that has none, as a list or anything that can be iterated
                over; they are kept and given back by `get`. An iterable is read as segments are written, so that it
                need not be in memory; lists are checked before anything else is done. Without ``doc_embs`` they are
                what ``encoder`` encodes, a few hundred at a time; an encoder of pictures takes pictures, which are not
                kept.
            encoder: what encodes ``texts`` here and queries later, see `lateint.encoders`. The index keeps its name and
                settings, and refuses another encoder.
            lengths: ``[n]``, how many tokens each document has, for a single array.
            mask: ``[n, L]`` for a padded array, nonzero where a token counts: padding may be on either side. A list of
                ``[L]`` for a list.
            ids: ``[n]`` int64 or strings that name the documents; None: their positions.
            metadata: a mapping for each document, or None, likewise: of strings to strings, numbers, booleans, dates
                (`datetime.date` or `datetime.datetime`), None, lists of these and mappings. docs/filters.md says how
                searches choose by them.
            sparse: a sparse vector for each document, or None, such as SPLADE makes: a matrix of SciPy or torch with a
                row for each, or likewise mappings of terms to weights, or pairs (terms, weights). Terms are strings, or
                numbers from 0, which stand for their digits; weights are from 0 to 65504, and kept as float16.
                docs/text.md has more.
            text_search: whether searches find ``texts`` by their words, those that are added later too: True, or a
                `lateint.Analyzer` that says what a word is. docs/text.md has more.
            nbits: bits a component, 1, 2, 4 or 8; None: 4, or those of ``codec``.
            ncentroids: how many centroids; None: about one for 48 tokens up to 16,384, fewer beyond.
            seed: of the random rotation and of k-means; None: 0.
            codec: what `lateint.train_codec` or another index (`Index.codec`) learned; nothing is learned then, and
                ``nbits``, ``ncentroids`` and ``seed``, where they are given, must be those of the codec.
            pool: 2 leaves about half of each document's tokens, 3 a third, and so on: those that are alike become one,
                see `lateint_kernels.pool`. docs/building.md says what it costs in quality. None or 1: all are kept.
            max_ram: bytes of working memory that the build may use, see `lateint.indexing.builder.plan`; None: no
                limit.
            allow_empty: accept documents without tokens; no search finds them.
            overwrite: replace an index at ``path``, to which nobody may be writing.
            resume: keep what is done, beside ``path``, when the build is killed or stopped, and go on with what an
                earlier build of the same documents and settings left there: the bytes are those of one that was never
                stopped. What is done of others is removed, with a warning. False: what earlier builds left is removed.
            threads: None: ``LATEINT_NUM_THREADS``, or as many as the process may use.
            progress: show progress bars on standard error.
            device: where to build, and to search afterwards, see `open`; the first of a list builds. The files are the
                same, byte for byte. Tensors on a GPU stay there, but for an iterator's that runs only once, which the
                host keeps. ``max_ram`` is the host's; docs/scale.md says what a device needs.
            device_memory: see `open`.

        Raises:
            TypeError: a dtype or an id of the wrong kind.
            ValueError: wrong shapes, a document without tokens, a token that is zero or not finite, duplicate ids,
                ``max_ram`` too small. The message names the document.
            BackendError: ``device`` needs torch, which is not installed.
            ImportError: the analyzer needs PyStemmer, which is not installed.
            MemoryError: ``device`` has not enough memory left.
            OSError: ``path`` exists or cannot be written. Nothing is left half-written, unless with ``resume``.

        Warns:
            UserWarning: with ``resume``, what an earlier build left is of other documents or settings, or damaged.
            UserWarning: some tokens are so much larger than most that the codes cannot hold them; see
                `lateint.indexing.codec.train_rotation`.
        """
        settings = builder.checked(
            nbits=nbits,
            ncentroids=ncentroids,
            seed=seed,
            max_ram=max_ram,
            threads=threads,
            progress=progress,
            codec=codec,
            pool=pool,
            encoder=None if encoder is None else described(encoder := adapted(encoder)),
        )
        place = Place.of(device, device_memory)
        _make_room(place)
        analyzer = Analyzer.of(text_search)
        if resume:
            _check_resumable(doc_embs, path, Records(texts, metadata, analyzer, sparse))
        doc_embs, texts = _embeddings(doc_embs, texts, encoder, shown=progress)
        records = Records(texts, metadata, analyzer, sparse)
        once = (
            codec is not None
            and isinstance(doc_embs, Iterator)
            and settings.pool == 1
            and lengths is None
            and mask is None
        )
        build: Callable[..., dict[str, float]]
        if once:
            build = partial(
                builder.build_passing, doc_embs, ids, settings, place=place, records=records, allow_empty=allow_empty
            )
        else:
            source = partial(documents.read, doc_embs, lengths, mask=mask, allow_empty=allow_empty)
            build = partial(builder.build, source, ids, settings, place=place, records=records)
        if path is None:
            kept = store.MemoryStore()
            seconds = build(kept)
            return _last(cls(Snapshot.of(*kept.index, place), None, seconds, encoder))
        folder = Path(path).absolute()
        place_files = resuming.placing if resume else store.writing
        with place_files(folder, overwrite=overwrite) as files:
            seconds = build(files) if once else build(files, spool=files.folder / "spool.bin")
        snapshot = Snapshot.of(*store.load(folder), place)
        return _last(cls(snapshot, folder, seconds, encoder))

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: Any = None,
        verify: bool = False,
        cache: str | os.PathLike[str] | None = None,
        device: Any = None,
        device_memory: int | None = None,
    ) -> Index:
        """Opens an index by mapping its files into memory, which takes milliseconds whatever their size.

        Args:
            path: the folder that `build` wrote; or the url of one in an object store (``"s3://bucket/index"``), which
                `push` wrote, for searching. That needs fsspec (``pip install lateint[remote]``) and what it needs for
                the store.
            cache: for a url, the folder of local copies: files are copied once, compared with their checksums, and
                mapped; of the same url only the newest are kept. Any number of processes may share one.
            encoder: what encodes texts, see `build`; it must be the one with which the index was built.
            verify: compare every file with its checksum and check all numbers in it first, which reads all of them;
                small files always are. For an index that somebody else made, see docs/security.md.
            device: where searches run: None or ``"cpu"``, or ``"cuda"``, ``"cuda:1"`` or such a ``torch.device``, to
                which the index is copied. Results are the same with the same settings, bit for bit. A list such
                as ``["cuda:0", "cuda:1"]`` gives each device a part of the documents.
            device_memory: bytes that the index may take on each device. If it needs more, its documents stay in memory
                or in their files, and those that searches look at are copied. None: it must fit.

        Raises:
            FileNotFoundError: there is nothing at ``path``.
            FormatError: it is not an index, a damaged one, or one of a newer format; the message names the file.
            TypeError, ValueError: ``device`` is none, or not there; ``encoder`` is another than that of the index.
            BackendError: ``device`` needs torch, which is not installed.
            MemoryError: ``device`` has not enough memory left, or ``device_memory`` is too little for any search.
        """
        place = Place.of(device, device_memory)
        _make_room(place)
        if isinstance(path, str) and remote.is_url(path):
            return _last(_copied(path, cache, place, encoder, verify=verify))
        if cache is not None:
            raise ValueError(f"cache goes with the url of an index, and path is {os.fspath(path)!r}")
        return _last(_opened(path, place, encoder, verify=verify))

    @classmethod
    def merge(
        cls,
        parts: Iterable[Index | str | os.PathLike[str]],
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        device: Any = None,
        device_memory: int | None = None,
    ) -> Index:
        """Makes one index of several with the same codec, built anywhere: of all documents, one part after another.

        No document is encoded again; files are linked, or copied where a file system cannot link. A search then finds
        what it finds in an index that was built of all documents with this codec, bit for bit.

        Args:
            parts: indexes, or their paths, in the order of documents. They stay as they are.
            path: the folder to write.
            overwrite: replace an index at ``path``.
            device, device_memory: see `open`.

        Raises:
            ValueError: a part has another codec, or ids of another kind, or an id is in two parts. The message names
                the parts.
            FormatError, OSError: a part cannot be read, or ``path`` not be written. Nothing is left half-written.
        """
        if isinstance(parts, (str, os.PathLike)):
            raise TypeError(f"parts must be a list of indexes or paths, got {type(parts).__name__}")
        sources = [_source(number, part) for number, part in enumerate(parts)]
        place = Place.of(device, device_memory)
        _make_room(place)
        merging.merge(sources, Path(path).absolute(), overwrite=overwrite)
        return _last(_opened(path, place))

    @classmethod
    def convert(
        cls,
        source: str | os.PathLike[str],
        path: str | os.PathLike[str] | None = None,
        *,
        format: str = "auto",
        nbits: int = 4,
        ids: Any = None,
        texts: Any = None,
        metadata: Any = None,
        max_ram: int | None = None,
        overwrite: bool = False,
        resume: bool = False,
        threads: int | None = None,
        progress: bool = True,
        device: Any = None,
        device_memory: int | None = None,
    ) -> Index:
        """Builds an index of the documents in an index of ColBERT, fast-plaid or xtr-warp-rs, without the encoder.

        Their tokens are decompressed, a chunk at a time, and compressed anew. Ids, deletions, texts and
        metadata are kept. Nothing is unpickled. docs/converting.md says what is kept of each format, and what
        it costs in quality.

        Args:
            source: the folder of the other index, which is only read.
            path, nbits, max_ram, overwrite, resume, threads, progress, device, device_memory: as in `build`.
            format: ``"colbert"``, ``"fast-plaid"`` or ``"xtr-warp"``; ``"auto"``: whichever ``source`` is.
            ids: names for the documents: a list in their order, or a mapping from their numbers in ``source``. None:
                those that are stored there, or these numbers.
            texts, metadata: as in `build`, or a mapping from the numbers in ``source``. None: those that are stored
                there; False: none.

        Raises:
            FileNotFoundError: there is nothing at ``source``, or a file in it is missing.
            TypeError, ValueError: ``source`` is of no such format, or damaged; or as `build`. The message names the
                file.
            ImportError: ``source`` needs a package that is not installed.
            OSError: as `build`.
        """
        foreign = reading.read(source, format, texts=texts is None, metadata=metadata is None)
        return cls.build(
            foreign.documents,
            path,
            ids=foreign.given(ids, "ids"),
            texts=foreign.given(texts, "texts"),
            metadata=foreign.given(metadata, "metadata"),
            nbits=nbits,
            max_ram=max_ram,
            allow_empty=True,
            overwrite=overwrite,
            resume=resume,
            threads=threads,
            progress=progress,
            device=device,
            device_memory=device_memory,
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the index to the folder ``path``."""
        state = self._snapshot.state
        with store.writing(Path(path).absolute(), overwrite=overwrite) as files:
            for name, array in state.arrays.items():
                store.put(files, name, array)
            files.commit(state.manifest)

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
        doc_embs, texts = _embeddings(doc_embs, texts, self.encoder)
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
            doc_embs, texts = _embeddings(doc_embs, texts, self.encoder)
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

    @property
    def generation(self) -> int:
        """How many commits there were between the build and what this index searches."""
        return self._snapshot.manifest.generation

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

    @property
    def calibration(self) -> Calibration | None:
        """What `calibrate` measured last; None: nothing."""
        return self._snapshot.manifest.calibration

    def _check_local(self) -> None:
        if self._remote is not None:
            raise ValueError(
                f"an index of a url cannot be changed: change a copy in a folder (snapshot) and push it to "
                f"{self._remote[0]}"
            )

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

    @overload
    def search(self, Q: OneQuery, k: int = 5, **settings: Unpack[SearchSettings]) -> Hits: ...
    @overload
    def search(self, Q: ManyQueries, k: int = 5, **settings: Unpack[SearchSettings]) -> list[Hits]: ...
    @overload
    def search(self, Q: Any, k: int = 5, **settings: Unpack[SearchSettings]) -> Any: ...
    def search(
        self,
        Q: Any,
        k: int = 5,
        *,
        text: Any = None,
        sparse: Any = None,
        alpha: float | None = None,
        fusion: str | None = None,
        rerank: int | None = None,
        nprobe: int | None = None,
        candidates: int | None = None,
        cells: int | None = None,
        exhaustive: bool = False,
        recall: float | None = None,
        subset: Any = None,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
        mask: Any = None,
        threads: int | None = None,
    ) -> Any:
        """The k documents with the highest MaxSim for each query, or by words, or both together.

        Args:
            Q: one query ``[Lq, dim]``, or a batch: ``[Nq, Lq, dim]``, a list of ``[Lq, dim]``, or a `Ragged`; any float
                dtype. Or a text, or a list of texts, which `encoder` encodes; where it reads pictures, also pairs
                ``(text, picture)`` with a picture of Pillow. None: ``text`` or ``sparse`` alone counts.
            k: how many; fewer come back only where there are fewer, for a search that finds too few widens ``nprobe``.
            text: words to be found, a string for each query, in an index with ``text_search``: alone, documents are
                ordered by BM25. With ``Q``, each score brings its best as candidates, every candidate gets both, and
                what they become together decides (`Hits.parts` has the two). True: the texts in ``Q``. docs/text.md has
                more.
            sparse: instead of ``text``, a sparse vector of the query, or for a batch a list of them or a matrix, as in
                `build`: documents are ordered by the inner product of theirs with it (`Hits.parts` calls it so).
            alpha: how much MaxSim counts beside BM25, from 0 to 1; None: 0.7, and 0.5 with ``fusion="rrf"``.
            fusion: ``"relative"`` (None), by scores, or ``"rrf"``, by ranks; see `lateint.retrieval.fusion.Fusion`.
            rerank: order so many of the best documents by BM25 (or ``sparse``) by MaxSim instead.
            nprobe: centroids that each query token looks into; None: half the square root of their number, from 16 to
                96, and more for k over 10.
            candidates: documents scored on their codes; None: as many as it takes, best first, until what is left can
                hardly be among the best k (docs/design.md, "When to stop"); at most 512 + 4 k.
            cells: of centroids, that each query token looks into; 0: it looks at all centroids. None: 24 if there are
                more than 4,096 centroids, else 0.
            exhaustive: score every document instead; ``nprobe``, ``candidates`` and ``cells`` then do nothing.
            recall: above 0 and below 1: take the cheapest settings with which searches find such a share of the best k,
                on average, as `calibrate` measured it. docs/recall.md says what that promises. With a filter or a
                subset, more centroids are looked into, as always.
            subset: what to choose from: ids; a mask ``[n]`` of bools in the order of `ids`; or what `subset` made of
                either, which costs nothing when it is used again. None: all. For a batch, it may be a list with one of
                these for each query; queries with the same object are searched together.
            filter: a condition on metadata, as a mapping (``{"lang": "en", "year": {"$gte": 2020}}``) or in SQL
                (``"lang = 'en' AND year >= :y"``), which needs sqlglot (``pip install lateint[sql]``). Only documents
                are found for which it holds; docs/filters.md has all of it. With ``subset``, both must hold.
            params: values for the names that a filter in SQL has after a colon.
            mask: ``[Lq]`` or ``[Nq, Lq]``, nonzero where a token of a query counts; None: all do.
            threads: None: as many as the process may use. A batch is spread over queries, a single query over its
                tokens, where centroids are looked for, and over documents, where they are scored.

        Returns:
            `Hits` for one query, a list of them for a batch; `Hits.plan` says how a subset was searched, and with what
            settings. Ties are in the order in which documents were given.

        Raises:
            TypeError, ValueError: the query's dtype or shape is wrong, it is empty or not finite, or k < 1; there is
                neither ``Q`` nor ``text`` nor ``sparse``, or this index has nothing that one of them searches.
            ImportError: the index's analyzer needs PyStemmer, which is not installed.
            UnknownIdError: a KeyError that names the id in ``subset``.
            ValueError: ``subset`` is a list of more or fewer than there are queries.
            FilterError, FieldError: ValueErrors: ``filter`` is no condition, or on a field that no document has.
            ValueError: it cannot be known which settings reach ``recall``; the message says why.
            RuntimeError: the index is damaged, in a part that `open` did not verify.

        Warns:
            UserWarning: the index has changed so much since `calibrate` that ``recall`` may be missed.
        """
        snapshot = self._snapshot
        beside = [name for name, value in (("text", text), ("sparse", sparse)) if value is not None]
        if Q is None and not beside:
            raise ValueError("search needs Q, or text or sparse, or one of them with Q; got none")
        if len(beside) > 1:
            raise ValueError("text and sparse must not both be given, for a search has one of them beside Q")
        fused = Fusion.of(alpha, fusion, rerank, both=Q is not None and bool(beside))
        if text is True:
            if not is_text(Q):
                raise ValueError(
                    "text may be True where Q is a text, or a list of texts; beside tokens, pass the texts"
                )
            text = words_of(Q)
        queries = None if Q is None else self._queries(Q, mask)
        k, workers = positive(k, "k"), thread_count(threads)
        centroids, most = snapshot.manifest.centroids, len(snapshot)
        scope = limits(k, nprobe, candidates, cells, centroids=centroids, documents=most, tokens=snapshot.state.tokens)
        choice = None
        if recall is not None:
            if beside:
                raise ValueError(f"recall is of searches by tokens alone, and {beside[0]} is given")
            alone("recall", nprobe=nprobe, candidates=candidates, cells=cells, exhaustive=exhaustive or None)
            choice = snapshot.choose(recall, k)
        words = None
        if text is not None:
            words = snapshot.words(*text_queries.read(text, queries))
        elif sparse is not None:
            words = snapshot.vectors(*text_queries.read_vectors(sparse, queries))
        asked = Asked(queries, words, min(k, max(1, most)), scope, fused, choice, exhaustive)
        each = None if subset is None else by_query(subset, None if asked.single else len(asked))
        if each is None:
            selection = _selection(snapshot, subset, filter, params)
            found = answer(snapshot.engine, asked, selection, centroids=centroids, threads=workers)
            hits = [_hits(snapshot, one) for one in found]
            return hits[0] if asked.single else hits
        ordered: list[Any] = [None] * len(asked)
        for part, numbers in each:  # one at a time, for each selection is as long as the index
            selection = _selection(snapshot, part, filter, params)
            found = answer(snapshot.engine, asked.some(numbers), selection, centroids=centroids, threads=workers)
            for number, one in zip(numbers, found, strict=True):
                ordered[number] = _hits(snapshot, one)
        return ordered

    def subset(self, ids: Any) -> Subset:
        """Ids, or a mask ``[n]`` of bools in the order of `ids`, looked up once, for any number of searches.

        When the index changes, ids are looked up once more; a mask is then refused, for it was one of other documents.

        Raises:
            UnknownIdError: a KeyError that names the id.
            ValueError: the mask is of another length.
        """
        made = Subset(ids)
        made.of(self._snapshot)
        return made

    def count(self, filter: Any, params: Mapping[str, Any] | None = None) -> int:
        """For how many documents a condition holds; see `search` for the arguments and errors."""
        return self._snapshot.filtered(filter, params).documents

    def select(self, filter: Any, params: Mapping[str, Any] | None = None) -> NDArray[Any]:
        """The ids of the documents for which a condition holds, in their order; arguments and errors as of `search`."""
        snapshot = self._snapshot
        return snapshot.ids.at(snapshot.filtered(filter, params).positions)

    @overload
    def rerank(
        self, Q: OneQuery, ids: Iterable[Any], k: int | None = None, **settings: Unpack[RerankSettings]
    ) -> Hits: ...
    @overload
    def rerank(
        self, Q: ManyQueries, ids: Iterable[Iterable[Any]], k: int | None = None, **settings: Unpack[RerankSettings]
    ) -> list[Hits]: ...
    @overload
    def rerank(self, Q: Any, ids: Iterable[Any], k: int | None = None, **settings: Unpack[RerankSettings]) -> Any: ...
    def rerank(
        self,
        Q: Any,
        ids: Iterable[Any],
        k: int | None = None,
        *,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
        mask: Any = None,
        threads: int | None = None,
    ) -> Any:
        """Scores the documents ``ids`` on their codes, best first.

        Args:
            Q: one query or a batch, as in `search`.
            ids: documents of this index, and for a batch a list of them for each query; those without tokens are left
                out of the answer.
            k: keep the best k; None: all.
            filter, params: see `search`; documents for which the condition does not hold are left out.
            mask, threads: as in `search`.

        Returns:
            `Hits` for one query, a list of them for a batch.

        Raises:
            UnknownIdError: a KeyError that names the id.
            ValueError: for a batch, there are more or fewer lists of ids than queries.
        """
        snapshot, queries = self._snapshot, self._queries(Q, mask)
        keep, workers = None if k is None else positive(k, "k"), thread_count(threads)
        lists = [ids] if queries.single else list(ids)
        if len(lists) != len(queries):
            raise ValueError(f"ids must be one list for each query, got {len(lists)} for {len(queries)} queries")
        chosen = _selection(snapshot, None, filter, params).chosen
        hits = []
        for number, some in enumerate(lists):
            positions = np.unique(snapshot.ids.positions(some, "ids" if queries.single else f"ids of query {number}"))
            if chosen is not None:
                positions = positions[chosen[positions] != 0]
            most = max(1, len(positions)) if keep is None else keep
            best, scores = searching.score(snapshot.engine, queries[number], positions, most, threads=workers)
            hits.append(_hits(snapshot, Found(best, scores, {"maxsim": scores}, Plan(SCAN, len(positions)))))
        return hits[0] if queries.single else hits

    def get(
        self,
        ids: Iterable[Any] | None = None,
        fields: Iterable[str] | None = None,
        *,
        filter: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """Texts and metadata of documents, in the order of ``ids``, or of the index for a ``filter``.

        Args:
            ids: of documents of this index.
            fields: names of fields to read, with dots where they are nested, and ``"text"`` for the text; None: all.
            filter, params: instead of ids, a condition on metadata, see `search`.

        Raises:
            UnknownIdError: a KeyError that names the id.
            FieldError: a ValueError that names a field that no document has.
        """
        if (ids is None) == (filter is None):
            raise ValueError("get needs ids or filter, and not both")
        snapshot = self._snapshot
        if ids is not None:
            return snapshot.documents.at(snapshot.ids.positions(ids, "ids"), fields)
        chosen = snapshot.filtered(filter, params).chosen
        assert chosen is not None
        return snapshot.documents.at(np.flatnonzero(chosen), fields)

    @property
    def documents(self) -> Documents:
        """All documents that are there now, as a sequence, as columns (``index.documents["year"]``), or as a table of
        Arrow (``index.documents.arrow()``)."""
        return self._snapshot.documents

    def explain(self, Q: Any, id: Any) -> Explanation:
        """Which token of document ``id`` each query token matches best, and their inner product."""
        snapshot, query = self._snapshot, self._one(Q, "explain")
        rows = snapshot.decoded(id)
        if len(rows) == 0:
            raise ValueError(f"document {id!r} has no tokens to explain")
        return searching.explain(snapshot.engine, query, rows, snapshot.codec.rotation.mean)

    def similarity(self, Q: Any, id: Any) -> NDArray[np.float32]:
        """Inner products ``[Lq, Ld]`` of all tokens of a query with all of document ``id``, as its codes remember them.

        The largest of each row are the scores that `explain` gives; `lateint.heatmap` draws them.

        Raises:
            UnknownIdError: a KeyError that names the id.
        """
        snapshot, query = self._snapshot, self._one(Q, "similarity")
        return searching.similarity(snapshot.engine, query, snapshot.decoded(id), snapshot.codec.rotation.mean)

    def reconstruct(self, id: Any) -> NDArray[np.float32]:
        """The tokens of document ``id`` as its codes remember them: ``[Ld, dim]`` on the original scale."""
        return self._snapshot.codec.rotation.invert(self._snapshot.decoded(id))

    def __len__(self) -> int:
        return len(self._snapshot)

    def __contains__(self, id: object) -> bool:
        """Whether there is a document of this id."""
        try:
            self._snapshot.ids.positions([id], "id")
        except UnknownIdError:
            return False
        return True

    def has(self, ids: Iterable[Any]) -> NDArray[np.bool_]:
        """``[n]``: which of these ids a document has."""
        ours = self._snapshot.ids
        _, keys, fit = ours.keys(ids, "ids")
        return fit & (ours.find(keys) >= 0)

    def __copy__(self) -> Index:
        """Another one that searches what this one searches now; what becomes of either does not concern the other."""
        copy = Index(self._snapshot, self.path, self._build_seconds)
        copy._encoder, copy._remote = self._encoder, self._remote
        return copy

    def __reduce__(self) -> Any:
        """An index is pickled as its path, which a process that loads it opens again. Its encoder stays behind."""
        if self.path is None and self._remote is None:
            raise TypeError("an index in memory cannot be pickled: save it, and open it by its path")
        names, place = list(self._snapshot.place.names), self._snapshot.place
        device = None if place.on_host else names if len(names) > 1 else names[0]
        where, cache = (self.path, None) if self._remote is None else self._remote
        return _unpickled, (where, device, place.memory, cache)

    def __repr__(self) -> str:
        place = self._remote[0] if self._remote is not None else str(self.path or "in memory")
        return f"Index({len(self):,} documents, {self.tokens:,} tokens, dim {self.dim}, {self.nbits} bits, {place})"

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


@overload
def search(
    Q: OneQuery,
    k: int = 5,
    *,
    index: Index | str | os.PathLike[str] | None = None,
    encoder: Any = None,
    **settings: Any,
) -> Hits: ...
@overload
def search(
    Q: ManyQueries,
    k: int = 5,
    *,
    index: Index | str | os.PathLike[str] | None = None,
    encoder: Any = None,
    **settings: Any,
) -> list[Hits]: ...
@overload
def search(
    Q: Any, k: int = 5, *, index: Index | str | os.PathLike[str] | None = None, encoder: Any = None, **settings: Any
) -> Any: ...
def search(
    Q: Any, k: int = 5, *, index: Index | str | os.PathLike[str] | None = None, encoder: Any = None, **settings: Any
) -> Any:
    """Searches an index in one line; see `Index.search`.

    Args:
        Q: one query ``[Lq, dim]`` or a batch; or texts.
        k: how many documents.
        index: an `Index`; the path of one, which is opened for this search alone; or None for the one that this process
            built or opened last, by whatever thread. It is kept until another takes its place; one on a device is let
            go before another is put on one, so that there need not be room for both.
        encoder: of texts, where ``index`` is a path.
        settings: passed on to `Index.search`.

    Raises:
        ValueError: ``index`` is left out before any was built or opened, or ``encoder`` is given without a path.
    """
    if index is None:
        if (index := _current) is None:
            raise ValueError("index must be given, for none has been built or opened in this process")
    elif not isinstance(index, Index):
        return _opened(index, encoder=encoder).search(Q, k, **settings)
    if encoder is not None:
        raise ValueError("encoder goes with the path of an index; one that is open has its own")
    return index.search(Q, k, **settings)


_current: Index | None = None  # what `search` searches


def _last(index: Index) -> Index:
    global _current
    _current = index
    log.info("ready: %s", index)
    return index


def _make_room(place: Place) -> None:
    global _current
    if _current is not None and not place.on_host and not _current._snapshot.place.on_host:
        _current = None


def _embeddings(doc_embs: Any, texts: Any, encoder: Encoder | None, *, shown: bool = False) -> tuple[Any, Any]:
    """Documents' tokens, or an iterator that encodes texts; and what is kept of the texts."""
    if doc_embs is not None:
        return doc_embs, texts
    if texts is None:
        raise TypeError("doc_embs must be given, or texts with an encoder")
    if encoder is None:
        raise ValueError("texts without doc_embs needs an encoder: pass encoder=, see lateint.encoders")
    return kept_and_encoded(encoder, texts, shown=shown)


def _hits(snapshot: Snapshot, found: Found) -> Hits:
    read = partial(snapshot.documents.at, found.positions)
    return Hits(snapshot.ids.at(found.positions), found.scores, found.plan, read, found.parts)


def _selection(snapshot: Snapshot, subset: Any, condition: Any, params: Any) -> Selection:
    """The documents that a search may find."""
    if params is not None and condition is None:
        raise ValueError("params goes with a filter, which is not given")
    if subset is None:
        chosen = snapshot.everything
    else:
        chosen = subset.of(snapshot) if isinstance(subset, Subset) else snapshot.subset(subset)
    return chosen if condition is None else chosen.among(snapshot.filtered(condition, params))


def _check_resumable(doc_embs: Any, path: Any, records: Records) -> None:
    if path is None:
        raise ValueError("resume needs a path, for what is done is kept beside it")
    if doc_embs is None:
        raise ValueError("resume needs doc_embs: texts are encoded once, and their tokens are not kept")
    if isinstance(doc_embs, Iterator):
        raise ValueError("resume needs documents that can be read again, got an iterator, which runs only once")
    if records.read_once is not None:
        raise ValueError(
            f"resume needs {records.read_once} that can be read again, got an iterator, which runs only once"
        )


def sources(indexes: Iterable[Index]) -> list[merging.Source]:
    """Indexes as `merging` takes them, named as they are."""
    return [merging.Source(str(one.path or one), None, one._snapshot.state) for one in indexes]


def _source(number: int, part: Index | str | os.PathLike[str]) -> merging.Source:
    """A part of `Index.merge`, as it is on disk where it is there."""
    if isinstance(part, Index) and part.path is None:
        return merging.Source(f"part {number} (in memory)", None, part._snapshot.state)
    folder = part.path if isinstance(part, Index) else Path(part).absolute()
    assert folder is not None
    return merging.Source(f"part {number} ({folder})", folder, State.of(*store.load(folder)))


def _unpickled(path: Any, device: Any, memory: int | None, cache: Path | None = None) -> Index:
    place = Place.of(device, memory)
    _make_room(place)
    return _opened(path, place) if cache is None else _copied(path, cache, place)


def _opened(path: str | os.PathLike[str], place: Place = HOST, encoder: Any = None, *, verify: bool = False) -> Index:
    folder = Path(path).absolute()
    snapshot = Snapshot.of(*store.load(folder, verify=verify), place)
    if verify:
        check_groups(snapshot.state)
    return Index(snapshot, folder, encoder=encoder)


def _copied(url: str, cache: Any, place: Place, encoder: Any = None, *, verify: bool = False) -> Index:
    if cache is None:
        raise ValueError(f"cache must be a folder for local copies, for path is a url: {url}")
    local = Path(cache).absolute()
    with remote.copied(url, local) as folder:
        opened = _opened(folder, place, encoder, verify=verify)
    opened.path, opened._remote = None, (url, local)
    return opened
