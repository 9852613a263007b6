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
