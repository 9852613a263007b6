"""The doors through which an index is built: of embeddings, of texts, or of an index of another library."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateint.converting import reading
from lateint.disk import resuming, store
from lateint.encoders.batches import given_or_encoded
from lateint.encoders.protocol import adapted, described
from lateint.fields.records import Records
from lateint.index.base import Base
from lateint.index.latest import last, make_room
from lateint.indexing import builder, documents
from lateint.indexing.codec import Codec
from lateint.snapshot import Snapshot
from lateint.text.analyzer import Analyzer
from lateint_kernels.devices import Place

if TYPE_CHECKING:
    from typing_extensions import Self


class Building(Base):
    """How an index comes to be."""

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
    ) -> Self:
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
        make_room(place)
        analyzer = Analyzer.of(text_search)
        if resume:
            _check_resumable(doc_embs, path, Records(texts, metadata, analyzer, sparse))
        doc_embs, texts = given_or_encoded(doc_embs, texts, encoder, shown=progress)
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
            return last(cls(Snapshot.of(*kept.index, place), None, seconds, encoder))
        folder = Path(path).absolute()
        place_files = resuming.placing if resume else store.writing
        with place_files(folder, overwrite=overwrite) as files:
            seconds = build(files) if once else build(files, spool=files.folder / "spool.bin")
        snapshot = Snapshot.of(*store.load(folder), place)
        return last(cls(snapshot, folder, seconds, encoder))

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
    ) -> Self:
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
