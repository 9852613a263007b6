"""Types of the compiled module; every argument arrives checked and contiguous."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.text.segment_text import SegmentSparse, SegmentText

def isa_names() -> list[str]: ...
def best_isa() -> str: ...
def isa_limit() -> str: ...
def active_isa() -> str: ...
def set_active_isa(name: str) -> None: ...
def default_threads() -> int: ...
def parallel_for(tasks: int, threads: int, body: Callable[[int, int], object]) -> None: ...
def bad_rows(tokens: NDArray[Any], dtype: int, threads: int) -> tuple[int, int]: ...
def packed(
    matrices: list[NDArray[np.float32]], limit: float
) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]: ...
def sketch(tokens: NDArray[np.float32], threads: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def cluster(
    tokens: NDArray[np.float32],
    offsets: NDArray[np.int64],
    counts: NDArray[np.int64],
    cosine: bool,
    with_means: bool,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
def pool(tokens: NDArray[np.float32], offsets: NDArray[np.int64], factor: int, threads: int) -> NDArray[np.float32]: ...
def maxsim(
    queries: NDArray[Any],
    query_dtype: int,
    query_offsets: NDArray[np.int64],
    documents: NDArray[Any],
    document_dtype: int,
    document_offsets: NDArray[np.int64],
    threads: int,
    codes: NDArray[np.int8] | None = None,
    scales: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def maxsim_pairs(
    queries: NDArray[Any],
    query_dtype: int,
    query_offsets: NDArray[np.int64],
    documents: NDArray[Any],
    document_dtype: int,
    document_offsets: NDArray[np.int64],
    query_index: NDArray[np.int64],
    document_index: NDArray[np.int64],
    threads: int,
    codes: NDArray[np.int8] | None = None,
    scales: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]: ...
def rotate(
    tokens: NDArray[Any],
    dtype: int,
    mean: NDArray[np.float32],
    rotation: NDArray[np.float32],
    permutation: NDArray[np.int32],
    step: float,
    threads: int,
) -> NDArray[np.float32]: ...
def to_bytes(scaled: NDArray[np.float32], depth: int, threads: int) -> NDArray[np.uint8]: ...
def peaks(rows: NDArray[np.uint8], scaled: NDArray[np.float32], threads: int) -> NDArray[np.float32]: ...
def encode(
    scaled: NDArray[np.float32], ids: NDArray[np.uint32], centroids: NDArray[np.uint8], nbits: int, threads: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...
def decode(
    codes: NDArray[np.uint8],
    scales: NDArray[np.uint8] | None,
    centroid_ids: NDArray[np.uint16],
    centroid_high: NDArray[np.uint8] | None,
    centroids: NDArray[np.uint8],
    nbits: int,
    width: int,
) -> NDArray[np.uint8]: ...
def subdivide(
    centroids: NDArray[np.uint8], cell_offsets: NDArray[np.int64], threads: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint32]]: ...
def cluster_means(
    tokens: NDArray[np.uint8], ids: NDArray[np.uint32], count: int, threads: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]: ...
def invert(
    ids: NDArray[np.uint32], offsets: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]: ...
def int8_products(rows: NDArray[np.uint8], vectors: NDArray[np.int8], maximum: bool) -> NDArray[np.int32]: ...

class Assigner:
    def __init__(
        self,
        centroids: NDArray[np.uint8],
        cells: NDArray[np.uint8],
        cell_offsets: NDArray[np.int64],
        subcells: tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint32]] | None,
        threads: int,
    ) -> None: ...
    def nearest(self, tokens: NDArray[np.uint8], cells: int, threads: int) -> NDArray[np.uint32]: ...

class Engine:
    """Reads the arrays off the fields of `CodecArrays` and `SegmentArrays` and keeps them alive."""

    def __init__(self, codec: CodecArrays, segments: Sequence[SegmentArrays], before: Engine | None) -> None: ...
    def runs(self) -> int: ...
    def search(
        self,
        queries: NDArray[np.float32],
        offsets: NDArray[np.int64],
        k: int,
        nprobe: int,
        candidates: int,
        patience: int,
        cells: int,
        deviations: float,
        watched: int,
        sampled: int,
        lists: int,
        allowed: NDArray[np.uint8] | None,
        threads: int,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]: ...
    def probe(
        self, queries: NDArray[np.float32], offsets: NDArray[np.int64], count: int, cells: int, threads: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
    def gather(
        self, query: NDArray[np.float32], nprobe: int, candidates: int, cells: int, lists: int, threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], int, int]: ...
    def score(self, query: NDArray[np.float32], positions: NDArray[np.int64], threads: int) -> NDArray[np.float32]: ...
    def prepare(self, query: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float64], float]: ...
    def decode(self, segment: int, first: int, n: int) -> NDArray[np.uint8]: ...

class TextEngine:
    """Reads the arrays off the fields of `SegmentText` and keeps them alive; terms of a query ascend."""

    def __init__(
        self, segments: Sequence[SegmentText], k1: float, b: float, live: NDArray[np.uint8] | None
    ) -> None: ...
    def search(
        self,
        queries: Sequence[Sequence[tuple[bytes, float]]],
        k: int,
        allowed: NDArray[np.uint8] | None,
        threads: int,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]: ...
    def score(self, terms: Sequence[tuple[bytes, float]], positions: NDArray[np.int64]) -> NDArray[np.float32]: ...
    def statistics(self, terms: Sequence[tuple[bytes, float]]) -> tuple[int, int, NDArray[np.int64]]: ...

class SparseEngine:
    """As `TextEngine`, of `SegmentSparse`."""

    def __init__(self, segments: Sequence[SegmentSparse], live: NDArray[np.uint8] | None) -> None: ...
    def search(
        self,
        queries: Sequence[Sequence[tuple[bytes, float]]],
        k: int,
        allowed: NDArray[np.uint8] | None,
        threads: int,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]: ...
    def score(self, terms: Sequence[tuple[bytes, float]], positions: NDArray[np.int64]) -> NDArray[np.float32]: ...

def invert_text(numbers: NDArray[np.uint32], offsets: NDArray[np.int64], terms: int) -> dict[str, NDArray[Any]]: ...
def join_text(segments: Sequence[SegmentText], places: Sequence[NDArray[np.uint32]]) -> dict[str, NDArray[Any]]: ...
def check_text(segment: SegmentText) -> None: ...
def invert_sparse(
    numbers: NDArray[np.uint32], weights: NDArray[np.uint16], offsets: NDArray[np.int64], terms: int
) -> dict[str, NDArray[Any]]: ...
def join_sparse(segments: Sequence[SegmentSparse], places: Sequence[NDArray[np.uint32]]) -> dict[str, NDArray[Any]]: ...
def check_sparse(segment: SegmentSparse) -> None: ...

class TrainProblem:
    """Tensors are addresses of contiguous memory that the caller keeps alive; 0: not given."""

    def __init__(
        self,
        *,
        dtype: int,
        dim: int,
        query_count: int,
        document_count: int,
        max_query_length: int,
        pairs: int,
        queries: int,
        query_offsets: int,
        documents: int,
        document_offsets: int,
        query_weights: int,
        query_inverse_norms: int,
        document_inverse_norms: int,
        document_scales: int,
        document_mask: int,
        query_index: int,
        document_index: int,
    ) -> None: ...
    def forward(self, scores: int, positions: int, position_bytes: int, threads: int) -> None: ...
    def backward(
        self,
        score_gradients: int,
        positions: int,
        position_bytes: int,
        query_gradients: int,
        document_gradients: int,
        weight_gradients: int,
        threads: int,
    ) -> None: ...
    def smooth_forward(self, temperature: float, found: int, threads: int) -> None: ...
    def smooth_backward(
        self,
        temperature: float,
        found: int,
        gradients: int,
        query_gradients: int,
        document_gradients: int,
        threads: int,
    ) -> None: ...
    def retrieve(self, k: int, best: int, positions: int, position_bytes: int, least: int, threads: int) -> None: ...
