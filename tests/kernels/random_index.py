"""Random indexes: arrays as an engine takes them, and the tokens that they stand for."""

import itertools
from dataclasses import dataclass

import numpy as np

from lateint_kernels.codes.centroids import invert
from lateint_kernels.codes.engine import Engine
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.codes.residual import decode, depth_of, split_ids


@dataclass
class Made:
    """An engine of random codes, and what is in it."""

    codec: CodecArrays
    segments: list[SegmentArrays]
    lengths: list[int]
    centroid_ids: np.ndarray
    rows: np.ndarray  # [T, width] decoded
    width: int

    def __post_init__(self):
        self.engine = Engine(self.codec, self.segments)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])

    def document(self, position):
        return self.rows[self.offsets[position] : self.offsets[position + 1]]

    def centroids_of(self, position):
        return set(self.centroid_ids[self.offsets[position] : self.offsets[position + 1]].tolist())

    def scores(self, query):
        """Brute force over the decoded bytes, summed as the engine sums: [n], -inf without tokens."""
        integers, scales, constant = self.engine.prepare(query)
        products = integers[:, : self.width].astype(np.float64) @ (self.rows.astype(np.float64) - 128).T
        scores = []
        for first, last in itertools.pairwise(self.offsets):
            maxima = products[:, first:last].max(axis=1, initial=-np.inf)
            scores.append(np.cumsum(np.append(constant, scales * maxima))[-1])  # one after the other
        return np.array(scores, np.float32)

    def best(self, query, k, allowed=None):
        scores = self.scores(query)
        if allowed is not None:
            scores[allowed == 0] = -np.inf
        order = np.argsort(-scores, kind="stable")[:k]
        order = order[np.isfinite(scores[order])]
        return order.tolist(), scores[order].tolist()


def filled_only(list_offsets, list_documents):
    """The lists that are not empty."""
    filled = np.flatnonzero(np.diff(list_offsets)).astype(np.uint32)
    return np.append(list_offsets[filled], list_offsets[-1]), list_documents, filled


RANGE = 1 << 18  # documents on the scoreboard at a time: kRange of csrc/codes/candidates.cpp
TURN = (1 << 11) - 2  # query tokens that have tags of their own there: kTurn


def make(rng, lengths, *, width=40, dim=None, nbits=4, count=30, cells=5, cuts=(), ids=None, sparse=False):
    """Random codes of documents of these lengths, cut into segments at ``cuts``, whose lists may be ``sparse``."""
    dim = width if dim is None else dim
    tokens, code_bytes = sum(lengths), width * nbits // 8
    centroids = np.full((count, depth_of(width)), 128, np.uint8)
    centroids[:, :width] = rng.integers(80, 176, (count, width))
    cell_rows = np.full((cells, depth_of(width)), 128, np.uint8)
    cell_rows[:, :width] = rng.integers(80, 176, (cells, width))
    block = max(size for size in range(1, min(width, 64) + 1) if width % size == 0)
    matrices = [np.linalg.qr(rng.standard_normal((block, block)))[0] for _ in range(width // block)]
    codec = CodecArrays(
        (rng.standard_normal(dim) * 0.05).astype(np.float32),
        np.stack(matrices).astype(np.float32),
        (rng.permutation(width) if block < width else np.arange(width)).astype(np.int32),
        centroids,
        cell_rows,
        np.linspace(0, count, cells + 1).astype(np.int64),
        float(np.float32(0.01)),
        nbits,
    )
    ids = rng.integers(0, count, tokens).astype(np.uint32) if ids is None else ids
    codes = rng.integers(0, 256, (tokens, code_bytes), dtype=np.uint8)
    scales = rng.integers(1, 80, tokens).astype(np.uint8)
    rows = decode(codes, scales, ids, centroids, nbits, width)
    segments, first = [], 0
    for last in (*cuts, len(lengths)):
        offsets = np.concatenate([[0], np.cumsum(lengths[first:last])]).astype(np.int64)
        part = slice(sum(lengths[:first]), sum(lengths[:last]))
        low, high = split_ids(ids[part], count)
        lists = invert(ids[part], offsets, count)
        lists = filled_only(*lists) if sparse else lists
        segments.append(SegmentArrays(offsets, codes[part], None if nbits == 8 else scales[part], low, high, *lists))
        first = last
    return Made(codec, segments, list(lengths), ids, rows, width)


def one(rankings):
    """Positions and scores of the only query."""
    (ranking,) = rankings
    return ranking[0].tolist(), ranking[1].tolist()


def whole(query):
    """The offsets of a batch of one query."""
    return np.array([0, len(query)], np.int64)
