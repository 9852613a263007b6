"""The index: build, open, search. The edge where what users pass is checked."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import ids as ids_module
from lateint.arguments import place_of, positive, thread_count
from lateint.disk import files, layout
from lateint.indexing import builder
from lateint.indexing import documents as documents_module
from lateint.indexing.codec import Codec
from lateint.indexing.training import checked
from lateint.retrieval import queries as queries_module
from lateint.retrieval.hits import Explanation, Hits
from lateint.retrieval.limits import Limits, limits
from lateint.retrieval.queries import Queries
from lateint_kernels.codes import building
from lateint_kernels.codes.engine import Ranking
from lateint_kernels.codes.engines import engine
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays

SMALL_SUBSET = 4096  # a subset up to this size is scored whole

_open: weakref.WeakSet[Index] = weakref.WeakSet()


class Index:
    """Documents as residual codes, searched by late interaction: ``S(q, d) = sum_i max_j <q_i, d_j>``.

    Make one with `Index.build` or `Index.open`. An index does not change once it is made, and any number of threads
    may search it at once.

    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.standard_normal((20, 16)) for _ in range(50)]
    >>> documents = [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in documents]
    >>> index = Index.build(documents, nbits=8, progress=False)
    >>> index.search(documents[7][:5], k=3).ids[0]
    np.int64(7)
    """

    def __init__(
        self,
        manifest: dict[str, Any],
        arrays: files.Arrays,
        path: Path | None,
        device: str = "cpu",
        device_memory: int | None = None,
    ) -> None:
        self._manifest, self._arrays, self.path = manifest, arrays, path
        self._codec = Codec.of(manifest, arrays)
        names = [segment["name"] for segment in manifest["segments"]]
        self._segments = [_segment(arrays, name) for name in names]
        self._first = np.concatenate([[0], np.cumsum([len(segment.offsets) - 1 for segment in self._segments])])
        self._live = self._live_documents()
        self._ids = ids_module.Ids([_ids(arrays, name, manifest["ids"]) for name in names], self._live)
        self._seconds: dict[str, float] = {}
        self.device = device
        self._engine = engine(_codec_arrays(self._codec), self._segments, device, device_memory)
        _open.add(self)

    # ------------------------------------------------------------------ making one

    @classmethod
    def build(
        cls,
        doc_embs: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        lengths: Any = None,
        ids: Any = None,
        nbits: int | None = None,
        ncentroids: int | None = None,
        seed: int | None = None,
        codec: Codec | None = None,
        max_ram: int | None = None,
        allow_empty: bool = False,
        overwrite: bool = False,
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
                only once is written to disk first, next to ``path``, or kept in memory where there is no path.
            path: the folder to write; None keeps the index in memory.
            lengths: ``[n]``, how many tokens each document has, for a single array.
            ids: ``[n]`` int64 or strings that name the documents; None: their positions.
            nbits: bits a component, 1, 2, 4 or 8; None: 4, or those of ``codec``.
            ncentroids: how many centroids; None: about one for 240 tokens, fewer beyond 4 M tokens.
            seed: of the random rotation and of k-means; None: 0.
            codec: what `lateint.train_codec` or another index (`Index.codec`) learned; nothing is learned then, and
                ``nbits``, ``ncentroids`` and ``seed``, where they are given, must be those of the codec.
            max_ram: bytes of working memory that the build may use, see `lateint.indexing.builder.plan`; None: no
                limit.
            allow_empty: accept documents without tokens; no search finds them.
            overwrite: replace an index at ``path``.
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
            MemoryError: ``device`` has not enough memory left.
            OSError: ``path`` exists or cannot be written. Nothing is left half-written.

        Warns:
            UserWarning: some tokens are so much larger than most that the codes cannot hold them; see
                `lateint.indexing.codec.train_rotation`.
        """
        settings = checked(nbits, ncentroids, seed, max_ram, threads, progress, codec)
        place, memory = place_of(device, device_memory)
        read = partial(documents_module.read, doc_embs, lengths, allow_empty=allow_empty)
        if path is None:
            store = files.MemoryStore()
            seconds = _build_into(store, read, ids, settings, codec, place)
            index = cls(store.manifest, store.arrays, None, place, memory)
            index._seconds = seconds
            return index
        with files.DiskStore(Path(path).absolute(), overwrite=overwrite) as disk:
            seconds = _build_into(disk, read, ids, settings, codec, place, disk.folder / "spool.bin")
        index = cls.open(path, device=place, device_memory=memory)
        index._seconds = seconds
        return index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        device: Any = None,
        device_memory: int | None = None,
    ) -> Index:
        """Opens an index by mapping its files into memory, which takes milliseconds whatever their size.

        Args:
            path: the folder that `build` wrote.
            verify: compare every file with its checksum first, which reads all of them.
            device: where searches run: None or ``"cpu"``, or ``"cuda"``, ``"cuda:1"`` or such a ``torch.device``, to
                which the index is copied. Results are the same with the same settings, bit for bit. A list such
                as ``["cuda:0", "cuda:1"]`` gives each device a part of the documents.
            device_memory: bytes that the index may take on each device. If it needs more, its documents stay in memory
                or in their files, and those that searches look at are copied. None: it must fit.

        Raises:
            FileNotFoundError: there is nothing at ``path``.
            FormatError: it is not an index, a damaged one, or one of a newer format; the message names the file.
            TypeError, ValueError: ``device`` is none, or not there.
            BackendError: ``device`` needs torch, which is not installed.
            MemoryError: ``device`` has not enough memory left, or ``device_memory`` is too little for any search.
        """
        place, memory = place_of(device, device_memory)
        folder = Path(path).absolute()
        manifest, arrays = files.load(folder, verify=verify)
        return cls(manifest, arrays, folder, place, memory)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the index to the folder ``path``."""
        with files.DiskStore(Path(path).absolute(), overwrite=overwrite) as store:
            for name, array in self._arrays.items():
                files.put(store, name, array)
            store.commit({key: value for key, value in self._manifest.items() if key != "files"})

    # ------------------------------------------------------------------ searching

    def search(
        self,
        Q: Any,
        k: int = 5,
        *,
        nprobe: int | None = None,
        candidates: int | None = None,
        cells: int | None = None,
        exhaustive: bool = False,
        subset: Iterable[Any] | None = None,
        threads: int | None = None,
    ) -> Any:
        """The k documents with the highest MaxSim for each query.

        Args:
            Q: one query ``[Lq, dim]``, or a batch: ``[Nq, Lq, dim]``, a list of ``[Lq, dim]``, or a `Ragged`; any float
                dtype.
            k: how many; fewer come back only where there are fewer, for a search that finds too few widens ``nprobe``.
            nprobe: centroids that each query token looks into; None: 16 for k up to 10, growing with k.
            candidates: documents scored on their codes; None: as many as it takes, best first, until 96 in a row (160
                with more than 65,536 centroids) changed nothing among the best k; at most 512 + 4 k.
            cells: of centroids, that each query token looks into; 0: it looks at all centroids. None: 24 if there are
                more than 32,768 centroids, else 0.
            exhaustive: score every document instead; ``nprobe``, ``candidates`` and ``cells`` then do nothing.
            subset: ids to choose from; None: all.
            threads: None: as many as the process may use. A batch is spread over queries, a single query over its
                tokens, where centroids are looked for, and over documents, where they are scored.

        Returns:
            `Hits` for one query, a list of them for a batch. Ties are in the order in which documents were given.

        Raises:
            TypeError, ValueError: the query's dtype or shape is wrong, it is empty or not finite, or k < 1.
            UnknownIdError: a KeyError that names the id in ``subset``.
        """
        queries = queries_module.read(Q, self.dim)
        k = positive(k, "k")
        sizes = {"centroids": len(self._codec.centroids), "documents": len(self._ids)}
        scope = limits(k, nprobe, candidates, cells, **sizes)
        workers = thread_count(threads)
        if subset is not None:
            rankings = self._search_subset(queries, k, scope, exhaustive, subset, workers)
        elif exhaustive:
            rankings = self._engine.exhaustive(queries.tokens, queries.offsets, k, allowed=self._live, threads=workers)
        else:
            rankings = self._pruned(queries, k, scope, self._live, workers)
        hits = [Hits(self._ids.at(positions), scores) for positions, scores in rankings]
        return hits[0] if queries.single else hits

    def rerank(self, Q: Any, ids: Iterable[Any], k: int | None = None, *, threads: int | None = None) -> Hits:
        """Scores the documents ``ids`` on their codes for one query ``[Lq, dim]``, best first.

        Args:
            Q: one query.
            ids: documents of this index; those without tokens are left out of the answer.
            k: keep the best k; None: all.

        Raises:
            UnknownIdError: a KeyError that names the id.
        """
        queries = queries_module.read(Q, self.dim)
        if not queries.single:
            raise ValueError("rerank takes one query [Lq, dim], got a batch")
        positions = np.unique(self._ids.positions(ids, "ids"))
        keep = len(positions) if k is None else positive(k, "k")
        ranking = self._score(queries.tokens, positions, keep, thread_count(threads))
        return Hits(self._ids.at(ranking[0]), ranking[1])

    def explain(self, Q: Any, id: Any) -> Explanation:
        """Which token of document ``id`` each query token matches best, and their inner product."""
        queries = queries_module.read(Q, self.dim)
        if not queries.single:
            raise ValueError("explain takes one query [Lq, dim], got a batch")
        rows = self._decoded(id)
        if len(rows) == 0:
            raise ValueError(f"document {id!r} has no tokens to explain")
        integers, scales, _ = self._engine.prepare(queries.tokens)
        products = integers[:, : rows.shape[1]].astype(np.int32) @ (rows.astype(np.int32) - 128).T
        best = products.argmax(1)
        constants = queries.tokens.astype(np.float64) @ self._codec.rotation.mean.astype(np.float64)
        scores = scales * products[np.arange(len(best)), best] + constants
        return Explanation(best.astype(np.int64), scores.astype(np.float32))

    def reconstruct(self, id: Any) -> NDArray[np.float32]:
        """The tokens of document ``id`` as its codes remember them: ``[Ld, dim]`` on the original scale."""
        return self._codec.rotation.invert(self._decoded(id))

    # ------------------------------------------------------------------ looking at it

    def __len__(self) -> int:
        return len(self._ids) if self._live is None else int(self._live.sum())

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else str(self.path)
        return f"Index({len(self):,} documents, {self.tokens:,} tokens, dim {self.dim}, {self.nbits} bits, {place})"

    @property
    def dim(self) -> int:
        """Components of a token."""
        return int(self._manifest["dim"])

    @property
    def codec(self) -> Codec:
        """What tokens are compressed with; `build` takes it for other documents."""
        return self._codec

    @property
    def nbits(self) -> int:
        """Bits a component."""
        return self._codec.nbits

    @property
    def tokens(self) -> int:
        """Tokens of all documents, deleted ones included."""
        return sum(int(segment.offsets[-1]) for segment in self._segments)

    @property
    def ids(self) -> NDArray[Any]:
        """``[n]``: the ids of all documents, in the order in which they were given."""
        return self._ids.at(np.arange(len(self)) if self._live is None else np.flatnonzero(self._live))

    def stats(self) -> dict[str, Any]:
        """Sizes, and how long each part of the build took where this index was just built: plain numbers, fit for JSON.

        ``bytes_per_token`` adds up all files but the manifest, by part.
        """
        parts = {
            "codes": ("codes",),
            "scales": ("scales",),
            "centroid_ids": ("centroid_ids", "centroid_high"),
            "lists": ("list_offsets", "list_documents"),
            "documents": ("offsets", "ids", "id_bytes", "id_offsets"),
        }
        of = {leaf: part for part, leaves in parts.items() for leaf in leaves}
        sizes = dict.fromkeys([*parts, "codec"], 0)
        for name, array in self._arrays.items():
            part = of.get(name.rsplit("/")[-1], "documents" if "/" in name else "codec")
            sizes[part] += array.nbytes + files.HEADER_BYTES
        tokens = max(1, self.tokens)
        return {
            "documents": len(self),
            "tokens": self.tokens,
            "dim": self.dim,
            "nbits": self.nbits,
            "centroids": len(self._codec.centroids),
            "cells": len(self._codec.centroids.cells),
            "segments": len(self._segments),
            "bytes": sum(sizes.values()),
            "bytes_per_token": {**{part: n / tokens for part, n in sizes.items()}, "all": sum(sizes.values()) / tokens},
            "build_seconds": self._seconds,
        }

    # ------------------------------------------------------------------ inside

    def _pruned(
        self, queries: Queries, k: int, scope: Limits, allowed: NDArray[np.uint8] | None, threads: int
    ) -> list[Ranking]:
        """A search that looks into more lists for the queries that found too few documents."""
        rankings = self._within(queries, k, scope, allowed, threads)
        short = [i for i, (positions, _) in enumerate(rankings) if len(positions) < k]
        if short and scope.nprobe < len(self._codec.centroids):
            short = [i for i in short if len(rankings[i][0]) < self._findable(allowed)]
        if not short or scope.nprobe >= len(self._codec.centroids):
            return rankings
        wider = scope._replace(nprobe=min(8 * scope.nprobe, len(self._codec.centroids)), cells=0)
        again = self._pruned(queries.some(short), k, wider, allowed, threads)
        for i, ranking in zip(short, again, strict=True):
            rankings[i] = ranking
        return rankings

    def _within(
        self, queries: Queries, k: int, scope: Limits, allowed: NDArray[np.uint8] | None, threads: int
    ) -> list[Ranking]:
        return self._engine.search(
            queries.tokens,
            queries.offsets,
            k,
            nprobe=scope.nprobe,
            candidates=scope.candidates,
            patience=scope.patience,
            cells=scope.cells,
            allowed=allowed,
            threads=threads,
        )

    def _search_subset(
        self,
        queries: Queries,
        k: int,
        scope: Limits,
        exhaustive: bool,
        subset: Iterable[Any],
        threads: int,
    ) -> list[Ranking]:
        positions = np.unique(self._ids.positions(subset, "subset"))
        if len(positions) == 0:
            return [(positions, np.zeros(0, np.float32))] * len(queries)
        if exhaustive or len(positions) <= max(SMALL_SUBSET, scope.candidates):
            return [self._score(queries[i], positions, k, threads) for i in range(len(queries))]
        allowed = np.zeros(len(self._ids), np.uint8)
        allowed[positions] = 1
        # A list holds few documents of a small subset, so more lists are read.
        share = len(positions) / len(self)
        probes = min(int(scope.nprobe / share), 8 * scope.nprobe, len(self._codec.centroids))
        return self._pruned(queries, k, scope._replace(nprobe=probes), allowed, threads)

    def _score(self, query: NDArray[Any], positions: NDArray[np.int64], k: int, threads: int) -> Ranking:
        """The k best of ``positions`` (ascending), ties in their order."""
        scores = self._engine.score(np.ascontiguousarray(query), positions, threads=threads)
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[np.isfinite(scores[best])]
        return positions[best], scores[best]

    def _live_documents(self) -> NDArray[np.uint8] | None:
        """``[n]``, zero where a document was deleted; None if none was."""
        if not any("deleted" in segment for segment in self._manifest["segments"]):
            return None
        live = np.ones(int(self._first[-1]), np.uint8)
        for first, segment in zip(self._first[:-1], self._manifest["segments"], strict=True):
            if "deleted" in segment:
                name = f"{segment['name']}/{segment['deleted']}"
                positions = self._arrays[name].astype(np.int64)
                if positions.size and (positions.max() >= segment["documents"] or (np.diff(positions) <= 0).any()):
                    raise files.FormatError(
                        f"{self.path}/{name}.npy must hold positions of documents, ascending; the index is damaged"
                    )
                live[first + positions] = 0
        return live

    def _findable(self, allowed: NDArray[np.uint8] | None) -> int:
        """How many documents a search can return: those allowed that have tokens."""
        some = np.concatenate([np.diff(segment.offsets) > 0 for segment in self._segments])
        return int(np.count_nonzero(some if allowed is None else some & (allowed != 0)))

    def _decoded(self, id: Any) -> NDArray[np.uint8]:
        position = int(self._ids.positions([id], "id")[0])
        number = int(np.searchsorted(self._first, position, side="right")) - 1
        local = position - int(self._first[number])
        first, last = (int(offset) for offset in self._segments[number].offsets[local : local + 2])
        return self._engine.decode(number, first, last - first)


def search(Q: Any, k: int = 5, *, index: Index | str | os.PathLike[str] | None = None, **settings: Any) -> Any:
    """Searches an index in one line; see `Index.search`.

    Args:
        Q: one query ``[Lq, dim]`` or a batch.
        k: how many documents.
        index: an `Index`, the path of one, or None if exactly one is alive in this process.
        settings: passed on to `Index.search`.

    Raises:
        ValueError: ``index`` is left out and there is not exactly one to take.
    """
    if index is None:
        alive = list(_open)
        if len(alive) != 1:
            raise ValueError(f"index must be given when not exactly one is open in this process, got {len(alive)} open")
        index = alive[0]
    elif not isinstance(index, Index):
        index = _opened(Path(index).absolute())
    return index.search(Q, k, **settings)


def _opened(folder: Path) -> Index:
    """The index that `search` opened last if it is this one, so that a loop of searches opens it once."""
    try:
        stamp = os.stat(folder / files.MANIFEST)
        key = (folder, stamp.st_ino, stamp.st_mtime_ns)
    except OSError:
        return Index.open(folder)  # it says what is wrong
    if key not in _kept:
        index = Index.open(folder)
        _kept.clear()
        _kept[key] = index
    return _kept[key]


_kept: dict[tuple[Path, int, int], Index] = {}


def _build_into(
    store: files.MemoryStore | files.DiskStore,
    read: Callable[..., documents_module.Documents],
    ids: Any,
    settings: dict[str, Any],
    codec: Codec | None,
    device: str,
    spool: Path | None = None,
) -> dict[str, float]:
    """Reads, builds and commits; returns how long each part took, which no two builds share and no file tells."""
    operators = building.operators(device.split(",")[0], settings["threads"])  # one of several builds
    try:
        documents = read(spool=spool, operators=operators)
        names = ids_module.check(ids, len(documents.lengths))
        if codec is not None and documents.dim != codec.dim:
            raise ValueError(f"doc_embs must have the dim of the codec, {codec.dim}, got {documents.dim}")
        manifest = builder.build(documents, builder.plan(documents, **settings, codec=codec), store, operators, codec)
        del documents  # and what it may hold on the device
    finally:
        operators.release()
    seconds: dict[str, float] = manifest.pop("seconds")
    first = 0
    for segment in manifest["segments"]:
        ids_module.put(store, segment["name"], names[first : first + segment["documents"]])
        first += segment["documents"]
    kind = layout.INT if isinstance(names, np.ndarray) else layout.STRING
    if spool is not None:
        spool.unlink(missing_ok=True)
    store.commit({"format": files.FORMAT, "version": files.VERSION, **manifest, "ids": kind})
    return seconds


def _segment(arrays: files.Arrays, name: str) -> SegmentArrays:
    return SegmentArrays(
        arrays[f"{name}/offsets"],
        arrays[f"{name}/codes"],
        arrays.get(f"{name}/scales"),
        arrays[f"{name}/centroid_ids"],
        arrays.get(f"{name}/centroid_high"),
        arrays[f"{name}/list_offsets"],
        arrays[f"{name}/list_documents"],
    )


def _ids(arrays: files.Arrays, name: str, kind: str) -> Any:
    if kind == layout.STRING:
        return arrays[f"{name}/id_bytes"], arrays[f"{name}/id_offsets"]
    return arrays[f"{name}/ids"]


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
