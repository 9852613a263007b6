"""The calibration of an index: what it is made of, and whether it still is of what the index holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lateint.calibration import EXCERPTS, QUERIES, Calibration
from lateint.changing.drift import RATIO, residual_norm
from lateint.changing.rebuilding import decoded
from lateint.disk.manifest import FormatError
from lateint.indexing.codec import Codec
from lateint.retrieval import calibrating
from lateint.retrieval.queries import Queries, read
from lateint.retrieval.searching import AnyEngine
from lateint.retrieval.selection import Selection
from lateint.state import State

GROWTH = 1.5  # times the tokens, from which a calibration is stale
EXCERPT = 32  # tokens at most
MOVED = 0.5  # by a random vector of this length, for a token of length 1


def calibrate(
    state: State, codec: Codec, engine: AnyEngine, queries: Queries | None, ks: list[int], n: int, *, threads: int
) -> Calibration:
    """Measures the recall of searches by ``n`` of the queries, or by as many excerpts of documents.

    Raises:
        ValueError: there is no query, or nothing to find.
    """
    if not state.tokens:
        raise ValueError("there is nothing to calibrate: the index holds no token")
    asked = excerpts(state, codec, n) if queries is None else sample(queries, n)
    if not len(asked):
        raise ValueError("queries must hold at least one query to calibrate with, got none")
    selection = Selection([part.arrays.offsets for part in state.parts], state.live)
    size = {"centroids": state.manifest.centroids, "ncells": state.manifest.cells, "tokens": state.tokens}
    ladders = calibrating.measure(engine, asked, ks, selection, **size, threads=threads)
    return Calibration(
        EXCERPTS if queries is None else QUERIES,
        len(asked),
        ladders,
        state.tokens,
        residual_norm(state, codec),
        _checksum(state, codec),
    )


def stale(calibration: Calibration, state: State, codec: Codec) -> str | None:
    """Why a calibration is no longer of what an index holds; None: it still is."""
    if calibration.codec_crc32 != _checksum(state, codec):
        return "the index was rebuilt with another codec"
    before, now = calibration.tokens, state.tokens
    if max(before, now) >= GROWTH * min(before, now):
        return f"the index held {before:,} tokens then and holds {now:,} now"
    norm = residual_norm(state, codec)
    if norm is not None and calibration.residual_norm and norm >= RATIO * calibration.residual_norm:
        return f"tokens are {norm / calibration.residual_norm:.2f} times as far from their centroids as they were then"
    return None


def sample(queries: Queries, n: int) -> Queries:
    """At most ``n`` of them, at random but always the same."""
    if len(queries) <= n:
        return queries
    return queries.some(np.sort(np.random.default_rng(0).permutation(len(queries))[:n]).tolist())


def excerpts(state: State, codec: Codec, n: int) -> Queries:
    """Of at most ``n`` documents, at random but always the same: a few tokens in a row, each moved a little.

    Raises:
        FormatError: the index is damaged, in a part that was not verified.
    """
    rng, found = np.random.default_rng(0), []
    live = np.arange(len(state.ids)) if state.live is None else np.flatnonzero(state.live)
    lengths = np.concatenate([np.empty(0, np.int64), *(part.lengths for part in state.parts)])
    filled = live[lengths[live] > 0]
    for position in np.sort(rng.permutation(filled)[:n]).tolist():
        number = int(np.searchsorted(state.firsts, position, side="right")) - 1
        part, local = state.parts[number], position - int(state.firsts[number])
        begin, end = (int(offset) for offset in part.arrays.offsets[local : local + 2])
        if not 0 <= begin < end <= part.entry.tokens:
            raise FormatError(f"{part.entry.name}/offsets must not decrease; the index is damaged")
        size = min(EXCERPT, end - begin)
        first = begin + int(rng.integers(0, end - begin - size + 1))
        found.append(_moved(decoded(part, np.arange(first, first + size), codec), rng))
    return read(found, codec.dim)


def _moved(tokens: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    lengths = np.linalg.norm(tokens, axis=1, keepdims=True)
    away = rng.standard_normal(tokens.shape, np.float32) * np.float32(MOVED / tokens.shape[1] ** 0.5)
    moved: NDArray[np.float32] = tokens + lengths * away
    return moved


def _checksum(state: State, codec: Codec) -> int:
    known = state.manifest.codec_crc32
    return codec.crc32 if known is None else known
