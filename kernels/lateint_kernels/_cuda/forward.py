"""MaxSim scores by the kernel forward.cu: bfloat16 and float16 on tensor cores."""

import ctypes
import functools
from ctypes import c_int, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lateint_kernels._cuda import program
from lateint_kernels._cuda.arguments import TOKEN, aligned, pointer

if TYPE_CHECKING:
    from torch import Tensor

THREADS = 256
TILES = ((128, 4), (128, 3), (64, 4), (64, 3), (128, 2), (64, 2))  # columns and stages, best first
BLOCKS_PER_MULTIPROCESSOR = 8  # at least, so that the last ones leave little idle; each reads its queries anew
MAX_ITEMS_PER_BLOCK = 32


class Forward(ctypes.Structure):
    """csrc/cuda/forward.cuh, byte for byte."""

    _fields_ = (
        ("queries", c_void_p),
        ("query_offsets", c_void_p),
        ("documents", c_void_p),
        ("document_offsets", c_void_p),
        ("row_factors", c_void_p),
        ("column_factors", c_void_p),
        ("pair_query", c_void_p),
        ("pair_document", c_void_p),
        ("scores", c_void_p),
        ("argmax", c_void_p),
        ("query_tokens", c_int),
        ("query_count", c_int),
        ("items", c_int),
        ("items_per_block", c_int),
        ("max_query_length", c_int),
        ("parts", c_int),
        ("queries_per_tile", c_int),
        ("position_bytes", c_int),
    )


@dataclass(frozen=True)
class Tile:
    """What a block of forward.cu works on at a time."""

    dim: int
    rows: int
    columns: int
    stages: int

    @property
    def shared(self) -> int:
        """Bytes: struct Layout of forward.cu."""
        tokens = (self.rows + self.stages * self.columns) * (self.dim + 8) * 2
        return tokens + (self.stages * self.columns + self.rows) * 4 + 2 * THREADS * 8


def maxsim(problem: Any, need_argmax: bool) -> "tuple[Tensor, Tensor | None]":
    """Scores, and where each query token's maximum was found.

    ``S_ij = sum_s w_s iq_s max_t { c_t id_t <q_s, d_t> : t present in document j }``

    Args:
        problem: bfloat16 or float16; its dim a multiple of 16.
        need_argmax: whether positions are wanted.

    Returns:
        ``[Nq, Nd]`` float32, of pairs ``[P]``; and ``[Nd, TQ]``, of pairs ``[P, max_query_length]``, or None. Products and
        sums are float32.
    """
    import torch

    queries, documents = aligned(problem.queries), aligned(problem.documents)
    gpu = program.gpu(queries.get_device())
    pairs = problem.query_index is not None
    counts = len(problem.query_offsets) - 1, len(problem.document_offsets) - 1
    items = len(problem.query_index) if pairs else counts[1]
    rows = problem.max_query_length if pairs else len(queries)
    tile = tile_for(gpu, rows, queries.shape[1])
    assert tile is not None  # why_not has asked
    parts = -(-problem.max_query_length // tile.rows)
    per_tile = max(1, tile.rows // problem.max_query_length)
    shape = (parts, items) if pairs else (parts, *counts)
    scores = torch.zeros(shape, dtype=torch.float32, device=queries.device)
    argmax = None
    if need_argmax:
        wanted = (items, problem.max_query_length if pairs else len(queries))
        argmax = torch.zeros(wanted, dtype=problem.argmax_dtype, device=queries.device)
    if scores.numel():
        row_factors, column_factors = _row_factors(problem), _column_factors(problem)
        tiles = parts if pairs else parts * counts[0] if parts > 1 else -(-counts[0] // per_tile)
        per_block = _items_per_block(gpu, tiles, items)
        arguments = Forward(
            pointer(queries),
            pointer(problem.query_offsets),
            pointer(documents),
            pointer(problem.document_offsets),
            pointer(row_factors),
            pointer(column_factors),
            pointer(problem.query_index),
            pointer(problem.document_index),
            pointer(scores),
            pointer(argmax),
            len(queries),
            counts[0],
            items,
            per_block,
            problem.max_query_length,
            parts,
            per_tile,
            0 if argmax is None else argmax.element_size(),
        )
        kernel = program.load("forward", _defines(queries, tile, column_factors, argmax), queries.get_device())
        kernel.launch((tiles, -(-items // per_block), 1), THREADS, tile.shared, arguments)
    return scores[0] if parts == 1 else scores.sum(0), argmax


@functools.cache
def tile_for(gpu: program.Gpu, rows: int, dim: int) -> Tile | None:
    """The best tile for so many query tokens, or None if none fits into shared memory."""
    fitting = [size for size in (32, 64, 128) if size < 2 * rows] or [32]
    for size in reversed(fitting):
        for columns, stages in TILES:
            tile = Tile(dim, size, columns, stages)
            if columns * size >= 16 * THREADS // 2 and tile.shared <= gpu.shared_per_block:
                return tile
    return None


def _items_per_block(gpu: program.Gpu, tiles: int, items: int) -> int:
    enough = items * tiles // (gpu.multiprocessors * BLOCKS_PER_MULTIPROCESSOR)
    return max(1, min(MAX_ITEMS_PER_BLOCK, enough), -(-items // 65535))


def _defines(
    queries: "Tensor", tile: Tile, column_factors: "Tensor | None", argmax: "Tensor | None"
) -> program.Defines:
    return (
        ("TOKEN", TOKEN[str(queries.dtype)]),
        ("DIM", str(tile.dim)),
        ("ROWS", str(tile.rows)),
        ("COLUMNS", str(tile.columns)),
        ("STAGES", str(tile.stages)),
        ("FACTORS", str(int(column_factors is not None))),
        ("ARGMAX", str(int(argmax is not None))),
    )


def _row_factors(problem: Any) -> "Tensor | None":
    """w iq; 0 where the token is absent."""
    if problem.query_weights is None or problem.query_inverse_norms is None:
        return problem.query_inverse_norms if problem.query_weights is None else problem.query_weights  # type: ignore[no-any-return]
    absent = problem.query_weights == 0
    return (problem.query_weights * problem.query_inverse_norms).masked_fill(absent, 0.0)  # type: ignore[no-any-return]


def _column_factors(problem: Any) -> "Tensor | None":
    """c id; -0 where the token is absent, and there only."""
    factors = problem.document_scales
    if problem.document_inverse_norms is not None:
        factors = problem.document_inverse_norms * (1.0 if factors is None else factors)
    if problem.document_mask is None:
        return None if factors is None else factors + 0.0
    if factors is None:
        factors = problem.document_mask.float()
    return (factors + 0.0).masked_fill(~problem.document_mask, -0.0)  # type: ignore[no-any-return]
