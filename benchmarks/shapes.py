"""The named workloads that benchmarks share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MaxsimShape:
    """Nq queries of Lq tokens against n documents of Ld tokens, of dim numbers each."""

    Nq: int
    Lq: int
    n: int
    Ld: int
    dim: int


MAXSIM_SHAPES = {
    # One ColBERT query against the candidates of a first stage.
    "rerank-1000x300": MaxsimShape(1, 32, 1000, 300, 128),
    "rerank-1000x300-d96": MaxsimShape(1, 32, 1000, 300, 96),
    "rerank-1000x300-d320": MaxsimShape(1, 32, 1000, 300, 320),
    # One page image against page images.
    "colpali-1024x1024": MaxsimShape(1, 1024, 20, 1024, 128),
    # Many questions of few words at once: they share tiles.
    "short-queries": MaxsimShape(64, 12, 200, 180, 128),
}


@dataclass(frozen=True)
class TrainShape:
    """Nq queries of Lq tokens and as many documents of Ld tokens, of dim numbers each."""

    Nq: int
    Lq: int
    Ld: int
    dim: int


TRAIN_SHAPES = {
    "colbert-64": TrainShape(64, 32, 180, 128),
    "colbert-64-d96": TrainShape(64, 32, 180, 96),
    "colbert-32x512": TrainShape(32, 32, 512, 128),
    "colpali-8": TrainShape(8, 1024, 1024, 128),
}


@dataclass(frozen=True)
class CodesShape:
    """n documents of Ld tokens as residual codes of nbits, against queries of Lq tokens."""

    Lq: int
    n: int
    Ld: int
    dim: int
    nbits: int


# The candidates of a search, far more tokens than the caches hold.
CODES_SHAPES = {
    f"codes-{nbits}bit-Lq{Lq}": CodesShape(Lq, 1000, 180, 128, nbits) for nbits in (1, 2, 4, 8) for Lq in (16, 32, 320)
} | {
    "codes-2bit-Lq32-d96": CodesShape(32, 1000, 180, 96, 2),
    "codes-2bit-Lq32-d320": CodesShape(32, 1000, 180, 320, 2),
}


@dataclass(frozen=True)
class CentroidShape:
    """K centroids in about sqrt(K) cells, and n tokens that look for theirs, in `cells` cells; 0: in all."""

    K: int
    n: int
    dim: int
    cells: int


CENTROID_SHAPES = {
    "centroids-4k": CentroidShape(4096, 1 << 15, 128, 0),
    "centroids-4k-cells": CentroidShape(4096, 1 << 15, 128, 3),
    "centroids-64k": CentroidShape(1 << 16, 1 << 13, 128, 0),
    "centroids-64k-cells": CentroidShape(1 << 16, 1 << 15, 128, 3),
}


@dataclass(frozen=True)
class CollectionShape:
    """n documents of about Ld tokens each around `topics` centres, and queries of Lq tokens."""

    n: int
    Ld: int
    Lq: int
    dim: int
    nbits: int
    topics: int = 5000


COLLECTION_SHAPES = {
    "passages-300k": CollectionShape(5000, 60, 32, 128, 4),
    "passages-300k-2bit": CollectionShape(5000, 60, 32, 128, 2),
    "pages-300k": CollectionShape(600, 500, 32, 128, 2),
}
