"""Building an index: learn the codec from a sample, then encode all tokens in one streaming pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import ids, progress
from lateint.arguments import integer, positive_or_none, thread_count
from lateint.disk.manifest import INT, STRING, Manifest, Segment
from lateint.disk.store import Store, put
from lateint.fields.groups import attached
from lateint.fields.records import Records
from lateint.indexing import clustering, streaming
from lateint.indexing.checkpoints import Checkpoints
from lateint.indexing.codec import Codec, Rotation, Training, train_rotation
from lateint.indexing.documents import Documents
from lateint.indexing.encoding import Encoder, Stream, check, first_bad_row
from lateint.indexing.pooling import pooled
from lateint.timings import Timings
from lateint_kernels import as_array
from lateint_kernels.codes import building, residual
from lateint_kernels.codes.building import HostOperators, Operators
from lateint_kernels.codes.residual import NBITS
from lateint_kernels.dense.pooling import MOST as MOST_POOLED
from lateint_kernels.devices import HOST, Place

CHUNK = 1 << 15  # tokens encoded at a time: arrays of 16 MB at dim 128, which malloc reuses without page faults
DOCUMENT_BYTES = 32  # its length, its id and where it begins, with what computes them
PILOT = 1 << 16  # tokens that mean and step are learned from
TOKENS_PER_CENTROID = 48
SAMPLE_PER_CENTROID = 24
ITERATIONS = 4
MOST_CENTROIDS = 1 << 24
MEASURED = 1 << 13  # tokens of the sample whose distance from their centroids is measured


@dataclass(frozen=True)
class Settings:
    """What the user of a build chooses.

    Attributes:
        nbits: bits a component.
        ncentroids: how many centroids; None: `default_centroids`.
        seed: of every random choice.
        max_ram: bytes, see `plan`; None: no limit.
        threads: 0 for the default.
        progress: show progress bars.
        codec: what to take instead of learning one; nbits and seed are then its own.
        pool: of so many tokens of a document one is left, see `lateint.indexing.pooling`.
        encoder: what the index keeps of the encoder that made the tokens; None: nothing.
    """

    nbits: int = 4
    ncentroids: int | None = None
    seed: int = 0
    max_ram: int | None = None
    threads: int = 0
    progress: bool = True
    codec: Codec | None = None
    pool: int = 1
    encoder: Mapping[str, Any] | None = None


def checked(
    *,
    nbits: int | None,
    ncentroids: int | None,
    seed: int | None,
    max_ram: int | None,
    threads: int | None,
    progress: bool,
    codec: Codec | None = None,
    pool: int | None = None,
    encoder: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings as users pass them, None for what is left out; those that a codec has must agree with it.

    Raises:
        TypeError, ValueError: one of them cannot be; the message names it.
    """
    if codec is not None:
        _check_agreement(codec, nbits=nbits, ncentroids=ncentroids, seed=seed)
        nbits, seed = codec.nbits, codec.seed
    nbits, seed = integer(4 if nbits is None else nbits, "nbits"), integer(0 if seed is None else seed, "seed")
    if nbits not in NBITS:
        raise ValueError(f"nbits must be one of {', '.join(map(str, NBITS))}, got {nbits}")
    if ncentroids is not None and not 1 <= (ncentroids := integer(ncentroids, "ncentroids")) <= MOST_CENTROIDS:
        raise ValueError(f"ncentroids must be between 1 and {MOST_CENTROIDS}, got {ncentroids}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    max_ram, threads = positive_or_none(max_ram, "max_ram"), thread_count(threads)
    if pool is not None and not 1 <= integer(pool, "pool") <= MOST_POOLED:
        raise ValueError(f"pool must be between 1 and {MOST_POOLED}, got {pool}")
    return Settings(nbits, ncentroids, seed, max_ram, threads, progress, codec, pool or 1, encoder)


def _check_agreement(codec: Codec, **given: int | None) -> None:
    if not isinstance(codec, Codec):
        raise TypeError(f"codec must be a lateint.Codec, got {type(codec).__name__}")
    fixed = {"nbits": codec.nbits, "ncentroids": len(codec.centroids), "seed": codec.seed}
    for name, value in given.items():
        if value is not None and integer(value, name) != fixed[name]:
            raise ValueError(f"{name} must be left out or be that of the codec, {fixed[name]}, got {value}")


@dataclass
class Plan:
    """What a build is going to do.

    Attributes:
        nbits: bits per component.
        centroids: how many.
        sample: tokens they are learned from.
        segment_tokens: a segment is closed when it holds so many.
        seed: of every random choice.
        threads: 0 for the default.
        progress: show progress bars.
    """

    nbits: int
    centroids: int
    sample: int
    segment_tokens: int
    seed: int
    threads: int
    progress: bool

    @property
    def fingerprint(self) -> dict[str, int]:
        """What the bytes of an index depend on."""
        names = ("nbits", "centroids", "sample", "segment_tokens", "seed")
        return {**{name: getattr(self, name) for name in names}, "pilot": PILOT, "chunk": CHUNK}


def default_centroids(tokens: int) -> int:
    """K grows with N up to 16,384 and with N^0.55 beyond, so that neither lists nor probing grow as fast as N."""
    knee = TOKENS_PER_CENTROID << 14
    scaled = tokens if tokens <= knee else knee * (tokens / knee) ** 0.55
    return max(1, min(MOST_CENTROIDS, int(scaled / TOKENS_PER_CENTROID)))


def plan(documents: Documents, settings: Settings) -> Plan:
    """Fits sample and segments into ``max_ram`` bytes (working memory, the input and an index in memory not counted).

    Working memory: ``sample * (depth + 16) + K * 15 depth + CHUNK * (20 dim + 128) + documents * DOCUMENT_BYTES
    + segment_tokens * 13``, where a document counts as one token more of a segment. With a codec there is no sample.
    Ids that are objects of Python are checked before that, with about 100 bytes each.
    """
    tokens, codec = int(documents.lengths.sum()), settings.codec
    if codec is not None:
        count = len(codec.centroids)
    else:
        count = default_centroids(tokens) if settings.ncentroids is None else min(settings.ncentroids, tokens)
    depth = residual.depth_of(-(-documents.dim // 8) * 8)
    most = tokens + len(documents.lengths)
    sample, segment = 0 if codec else min(tokens, count * SAMPLE_PER_CENTROID), most
    if (max_ram := settings.max_ram) is not None:
        fixed = count * 15 * depth + CHUNK * (20 * documents.dim + 128) + len(documents.lengths) * DOCUMENT_BYTES
        least = fixed + (0 if codec else 4 * count * (depth + 16))
        if max_ram < least:
            raise ValueError(
                f"max_ram must be at least {least:,} bytes for {tokens:,} tokens of dim {documents.dim} and {count:,} "
                f"centroids, got {max_ram:,}"
            )
        sample = min(sample, (max_ram - fixed) // (depth + 16))
        segment = min(segment, max(CHUNK, (max_ram - fixed) // 13))
    return Plan(settings.nbits, count, int(sample), int(segment), settings.seed, settings.threads, settings.progress)


def build(
    read: Callable[..., Documents],
    names: Any,
    settings: Settings,
    store: Store,
    place: Place = HOST,
    *,
    records: Records | None = None,
    spool: Path | None = None,
) -> dict[str, float]:
    """Reads documents, writes their index into ``store`` and commits it.

    Args:
        read: `lateint.indexing.documents.read` of them, but for its ``spool`` and ``operators``.
        names: their ids, as a user passes them.
        place: that computes; of several devices, the first.
        records: what documents carry besides.
        spool: a file to keep documents in that can be read only once.

    Returns:
        The seconds that each part took, which no two builds share and no file tells.
    """
    operators = building.operators(place, settings.threads)
    timings, records = Timings(), records or Records()
    pool_file = None if spool is None else spool.with_name("pooled.bin")
    try:
        documents = read(spool=spool, operators=operators)
        checked_names = ids.check(names, len(documents.lengths))
        records.check(len(documents.lengths))
        documents = prepared(documents, settings, pool_file, operators)
        manifest = _build(documents, plan(documents, settings), settings.codec, store, records, operators, timings)
        del documents  # and what it may hold on the device
    finally:
        operators.release()
    for file in (spool, pool_file):
        if file is not None:
            file.unlink(missing_ok=True)
    _commit(manifest, checked_names, store, settings)
    return timings.seconds


def build_passing(
    source: Iterator[Any],
    names: Any,
    settings: Settings,
    store: Store,
    place: Place = HOST,
    *,
    records: Records | None = None,
    allow_empty: bool = False,
) -> dict[str, float]:
    """As `build`, with the codec of ``settings``, from an iterator that is read once while nothing of it is kept."""
    codec = settings.codec
    assert codec is not None
    operators, timings = building.operators(place, settings.threads), Timings()
    records = records or Records()
    try:
        for name, array in codec.arrays.items():
            put(store, name, array)
        encoder = Encoder(codec, operators, timings)
        passing = streaming.Passing(source, codec.dim, allow_empty, operators)
        chunk, most = CHUNK * operators.chunks(codec.dim), _passing_segment(codec, settings)
        segments, lengths = streaming.encode(
            passing, encoder, store, carried=partial(carried, records, store), chunk=chunk, segment_tokens=most
        )
        records.close()
    finally:
        operators.release()
    if not lengths.sum():
        raise ValueError(f"doc_embs must hold at least one token, got {len(lengths)} documents without any")
    encoder.overflow.warn(int(lengths.sum()))
    manifest = Manifest(
        **codec.described,
        segments=tuple(segments),
        ids=INT,
        next_segment=len(segments),
        analyzer=records.analyzer,
    )
    _commit(manifest, ids.check(names, len(lengths)), store, settings)
    return timings.seconds


def _passing_segment(codec: Codec, settings: Settings) -> int:
    """Tokens of a segment, which is in memory with its codes until it is written."""
    if settings.max_ram is None:
        return streaming.SEGMENT
    depth = residual.depth_of(codec.rotation.width)
    fixed = len(codec.centroids) * 15 * depth + CHUNK * (20 * codec.dim + 128)
    of_token = 13 + 2 * (codec.rotation.width * codec.nbits // 8 + 5)
    if settings.max_ram < (least := fixed + CHUNK * of_token):
        raise ValueError(
            f"max_ram must be at least {least:,} bytes for an iterator that runs only once and a codec of dim "
            f"{codec.dim} and {len(codec.centroids):,} centroids, got {settings.max_ram:,}"
        )
    return min(streaming.SEGMENT, (settings.max_ram - fixed) // of_token)


def carried(records: Records, store: Store, segment: Segment) -> Segment:
    """Writes what the documents of a segment carry, which is next in ``records``; returns what the manifest says."""
    groups = attached(records.take(segment.documents))
    for arrays in groups.values():
        for leaf, rows in arrays.items():
            put(store, f"{segment.name}/{leaf}", rows.whole())
    return replace(segment, groups=tuple(groups))


def _commit(manifest: Manifest, names: NDArray[np.int64] | list[str], store: Store, settings: Settings) -> None:
    """Writes ids, and ends the index."""
    first, segments = 0, []
    for segment in manifest.segments:
        hashed = ids.put(store, segment.name, names[first : first + segment.documents])
        segments.append(replace(segment, hashed=hashed))
        first += segment.documents
    kind = INT if isinstance(names, np.ndarray) else STRING
    following, encoder = ids.following(names), settings.encoder
    store.commit(replace(manifest, segments=tuple(segments), ids=kind, next_id=following, encoder=encoder))


def prepared(documents: Documents, settings: Settings, spool: Path | None, operators: Operators) -> Documents:
    """Documents as they are encoded: pooled, where that is a setting, into the file ``spool``.

    Raises:
        ValueError: they have another dim than the codec; or as `pooled`.
    """
    if settings.codec is not None and documents.dim != settings.codec.dim:
        raise ValueError(f"doc_embs must have the dim of the codec, {settings.codec.dim}, got {documents.dim}")
    if settings.pool == 1:
        return documents
    return pooled(documents, settings.pool, threads=settings.threads, spool=spool, operators=operators)


def _build(
    documents: Documents,
    plan: Plan,
    codec: Codec | None,
    store: Store,
    records: Records,
    operators: Operators,
    timings: Timings,
) -> Manifest:
    """Writes codec and segments; without a codec, one is learned. What an earlier process did is not done again."""
    operators.check(**_sizes(documents, plan))
    checkpoints = Checkpoints(store, documents, records, plan.fingerprint, codec)
    if checkpoints.codec is None:
        codec = codec or train(documents, plan, operators, timings)
        for name, array in codec.arrays.items():
            put(store, name, array)
    else:
        codec = checkpoints.codec
    encoder = Encoder(codec, operators, timings)
    encoder.overflow.tokens, encoder.overflow.most = checkpoints.overflow
    checkpoints.report(codec, encoder, checkpoints.segment, at_once=True)
    cuts, ends = cut_into_segments(documents.lengths, plan.segment_tokens), np.cumsum(documents.lengths)
    before = int(ends[cuts[checkpoints.segment][0] - 1]) if checkpoints.segment else 0
    chunks = _chunks(documents, "encode", plan, operators)
    stream = Stream(documents.lengths, chunks, operators, skipped=before + len(checkpoints.ids))
    segments = []
    for number, (first, last) in enumerate(cuts):
        name, lengths = f"segments/{number:06d}", documents.lengths[first:last]
        segment = Segment(name, last - first, int(lengths.sum()))
        if number < checkpoints.segment:
            segments.append(replace(segment, groups=checkpoints.groups[number]))
            records.skip(last - first)
        else:
            encoder.segment(
                lengths,
                stream,
                store,
                name,
                ids=checkpoints.ids if number == checkpoints.segment else None,
                report=partial(checkpoints.report, codec, encoder, number),
            )
            segments.append(carried(records, store, segment))
            checkpoints.groups.append(segments[-1].groups)
    stream.close()
    records.close()
    encoder.overflow.warn(int(documents.lengths.sum()))
    return Manifest(
        **codec.described,
        segments=tuple(segments),
        ids=INT,
        next_segment=len(segments),
        analyzer=records.analyzer,
    )


def train(documents: Documents, plan: Plan, operators: Operators, timings: Timings) -> Codec:
    """Learns mean, step and centroids from a sample of all tokens."""
    with timings.of("codec"):
        pilot = documents.pilot(PILOT)
        if first_bad_row(operators.put(pilot), operators) is not None:
            _check_all(documents, operators)
        rotation = train_rotation(as_array(pilot, "doc_embs"), seed=plan.seed, threads=plan.threads)
        del pilot
    with timings.of("sample"):
        sample = _sample(documents, rotation, plan, operators)
    with timings.of("centroids"):
        centroids = _train_centroids(sample, plan, operators).on_host(operators)
        norm = rotation.step * _residual_norm(sample, centroids, plan.threads, operators)
    return Codec(rotation, centroids, plan.nbits, plan.seed, Training(int(documents.lengths.sum()), norm))


def _residual_norm(sample: Any, centroids: clustering.Centroids, threads: int, operators: Operators) -> float:
    """Mean distance of some tokens of the sample from their centroids, in units of the step.

    It is the same everywhere: the squares are integers, and their roots are added up exactly.
    """
    some = np.linspace(0, len(sample) - 1, min(MEASURED, len(sample))).astype(np.int64)
    rows = operators.host(operators.take(sample, some))
    nearest = clustering.assigner(centroids, HostOperators(threads))
    squares = np.empty(len(rows))
    for first in range(0, len(rows), 4096):
        part = rows[first : first + 4096]
        apart = part.astype(np.int32) - centroids.rows[nearest(part)]
        squares[first : first + 4096] = (apart * apart).sum(1)
    return math.fsum(np.sqrt(squares).tolist()) / len(rows)


def _check_all(documents: Documents, operators: Operators) -> None:
    offsets = np.concatenate([[0], np.cumsum(documents.lengths)])
    first = 0
    for chunk in documents.chunks(CHUNK * operators.chunks(documents.dim)):
        check(operators.put(chunk), offsets, operators, first)
        first += len(chunk)


def _sizes(documents: Documents, plan: Plan) -> dict[str, int]:
    """What memory depends on."""
    cuts = cut_into_segments(documents.lengths, plan.segment_tokens)
    return {
        "dim": documents.dim,
        "centroids": plan.centroids,
        "sample": plan.sample,
        "segment_tokens": max(int(documents.lengths[first:last].sum()) for first, last in cuts),
        "segment_documents": max(last - first for first, last in cuts),
    }


def _sample(documents: Documents, rotation: Rotation, plan: Plan, operators: Operators) -> Any:
    """Random tokens as rows ``[S, depth]`` of the operators, the same share of every part of the stream."""
    rng = np.random.default_rng(plan.seed)
    rotate = operators.rotation(rotation.mean, rotation.blocks, rotation.permutation, rotation.step)
    rows = operators.empty(plan.sample, rotation.width)
    picks = _Picks(plan.sample, int(documents.lengths.sum()), rng)
    taken = 0
    for chunk in _chunks(documents, "sample", plan, operators):
        picked = picks.among(len(chunk))
        if picked.size:
            rows[taken : taken + len(picked)] = operators.to_bytes(rotate(operators.put(chunk[picked])))
            taken += len(picked)
    return rows


class _Picks:
    """Which of ``total`` tokens are the sample: the same share of each CHUNK of them, however they come."""

    def __init__(self, sample: int, total: int, rng: np.random.Generator) -> None:
        self.sample, self.total, self.rng = sample, total, rng
        self.seen = self.drawn = 0
        self.waiting = np.empty(0, np.int64)

    def among(self, n: int) -> NDArray[np.int64]:
        """Rows of the next ``n`` tokens."""
        begin, self.seen = self.seen, self.seen + n
        while self.drawn < self.seen:
            size = min(CHUNK, self.total - self.drawn)
            before, after = (end * self.sample // self.total for end in (self.drawn, self.drawn + size))
            rows = np.sort(self.rng.choice(size, after - before, replace=False))
            self.waiting = np.concatenate([self.waiting, self.drawn + rows])
            self.drawn += size
        count = int(np.searchsorted(self.waiting, self.seen))
        rows, self.waiting = self.waiting[:count], self.waiting[count:]
        return rows - begin


def _train_centroids(sample: Any, plan: Plan, operators: Operators) -> clustering.Centroids:
    with progress.bar(ITERATIONS, "centroids", "iteration", shown=plan.progress) as bar:
        return clustering.train(
            sample,
            plan.centroids,
            iterations=ITERATIONS,
            seed=plan.seed,
            operators=operators,
            report=bar.update,
        )


def cut_into_segments(lengths: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Ranges of documents with at most ``most`` tokens each, a document counting as one more (a longer document is a
    segment of its own)."""
    ends = np.cumsum(lengths + 1)
    cuts, first = [], 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        cuts.append((first, last))
        first = last
    return cuts


def _chunks(documents: Documents, label: str, plan: Plan, operators: Operators) -> Iterator[Any]:
    """As many tokens at a time as suit the operators, or fewer."""
    total = int(documents.lengths.sum())
    with progress.bar(total, label, "token", shown=plan.progress, scaled=True, stays=label == "encode") as bar:
        for chunk in documents.chunks(CHUNK * operators.chunks(documents.dim)):
            yield chunk
            bar.update(len(chunk))
