"""MaxSim scores on tensor cores, of bfloat16 and float16: forward.cu anywhere, forward_hopper.cu on sm_90a.

Launch sizes are chosen here, from shapes and the GPU alone: nothing is tried out, and nothing waits for the device.
"""

import ctypes
import functools
from ctypes import c_int, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from lateint_kernels.dense.problem import Problem
from lateint_kernels.gpu import program
from lateint_kernels.gpu.arguments import TOKEN, aligned, pointer

TILES = ((128, 4), (128, 3), (64, 4), (64, 3), (128, 2), (64, 2))  # forward.cu: columns and stages, best first
HOPPER_COLUMNS = (128, 112, 104, 96, 80, 64)  # those of hopper.cuh; 128 with factors and positions needs more registers
HOPPER_ROWS = 256  # two groups of 128
HOPPER_DIMS = (64, 128)
HOPPER_STAGES = 8  # at most
WARM_ITEMS = 48  # a block's work should be at least so many documents, for each begins by loading queries
BLOCKS_PER_MULTIPROCESSOR = 8  # of forward.cu, at least, so that the last ones leave little idle


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


class HopperForward(ctypes.Structure):
    """csrc/cuda/forward_hopper.cu, byte for byte."""

    _fields_ = (("documents", ctypes.c_char * 128), ("forward", Forward), ("padding", ctypes.c_char * 16))


@dataclass(frozen=True)
class Tile:
    """What a block works on: query tokens in `groups` of `rows`, and `columns` document tokens in each of `stages`."""

    kernel: str
    dim: int
    rows: int
    columns: int
    stages: int

    @property
    def groups(self) -> int:
        """Of rows, each with its own queries."""
        return 2 if self.kernel == "forward_hopper" else 1

    @property
    def threads(self) -> int:
        """Of a block."""
        return 384 if self.kernel == "forward_hopper" else 256

    @property
    def shared(self) -> int:
        """Bytes of shared memory: struct Layout of the kernel's source."""
        if self.kernel == "forward_hopper":  # and up to 1024 to align it
            held = self.groups * self.rows * (4 + 2 * 8)
            return 1024 + held + self.stages * (self.columns * (self.dim * 2 + 4) + 2 * 8)
        tokens = (self.rows + self.stages * self.columns) * (self.dim + 8) * 2
        return tokens + (self.stages * self.columns + self.rows) * 4 + 2 * self.threads * 8


def maxsim(problem: Problem, need_argmax: bool) -> tuple[Tensor, Tensor | None]:
    """Scores, and where each query token's maximum was found.

    ``S_ij = sum_s w_s iq_s max_t { c_t id_t <q_s, d_t> : t present in document j }``

    Args:
        problem: bfloat16 or float16; its dim a multiple of 16.
        need_argmax: whether positions are wanted.

    Returns:
        ``[Nq, Nd]`` float32, of pairs ``[P]``; and ``[Nd, TQ]``, of pairs ``[P, max_query_length]``, or None. Products
        and sums are float32.
    """
    queries, pairs = problem.queries, problem.query_index is not None
    row_factors, column_factors = problem.query_factors, _column_factors(problem)
    tile = tile_for(
        program.gpu(queries.get_device()),
        problem.max_query_length if pairs else len(queries),
        problem.max_document_length,
        problem.dim,
        pairs,
        need_argmax and column_factors is not None,
    )
    assert tile is not None  # why_not has asked
    parts = -(-problem.max_query_length // tile.rows)
    scores = queries.new_empty((parts, *problem.scores_shape), dtype=torch.float32)
    argmax = None
    if need_argmax:  # of pairs, rows that a shorter query does not have are written by no one
        new = queries.new_zeros if pairs else queries.new_empty
        argmax = new(problem.argmax_shape, dtype=problem.argmax_dtype)
    if scores.numel():
        _launch(problem, tile, row_factors, column_factors, scores, argmax)
    return scores[0] if parts == 1 else scores.sum(0), argmax


@functools.cache
def tile_for(
    gpu: program.Gpu, rows: int, max_document_length: int, dim: int, pairs: bool, registers_are_short: bool = False
) -> Tile | None:
    """The best tile for so many query tokens, or None if none fits into shared memory."""
    hopper = gpu.arch == "sm_90a" and dim in HOPPER_DIMS and max_document_length > 0  # no map of no tokens
    if hopper and not pairs and rows > HOPPER_ROWS // 2:
        columns = min(HOPPER_COLUMNS[registers_are_short:], key=lambda size: -(-max_document_length // size) * size)
        stages = range(HOPPER_STAGES, 1, -1)
        return next(
            t for s in stages if (t := Tile("forward_hopper", dim, 128, columns, s)).shared <= gpu.shared_per_block
        )
    sizes = (32, 64, 128) if rows <= 32 else (64, 128, 32) if rows <= 64 else (128, 64, 32)
    tiles = (Tile("forward", dim, size, columns, stages) for size in sizes for columns, stages in TILES)
    # Eight warps of 32 rows share the columns, 16 at least for each.
    fitting = (t for t in tiles if t.columns >= 16 * 8 * 32 // t.rows and t.shared <= gpu.shared_per_block)
    return next(fitting, None)


def _launch(
    problem: Problem,
    tile: Tile,
    row_factors: Tensor | None,
    column_factors: Tensor | None,
    scores: Tensor,
    argmax: Tensor | None,
) -> None:
    queries, documents = aligned(problem.queries), aligned(problem.documents)
    pairs = problem.query_index is not None
    count, items, parts = problem.Nq, scores.shape[-1], scores.shape[0]
    per_tile = max(1, tile.rows // problem.max_query_length)
    tiles = parts if pairs else parts * count if parts > 1 else -(-count // per_tile)
    blocks = -(-tiles // tile.groups)
    per_block = _items_per_block(program.gpu(queries.get_device()), tile, blocks, items)
    arguments: ctypes.Structure = Forward(
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
        count,
        items,
        per_block,
        problem.max_query_length,
        parts,
        per_tile,
        0 if argmax is None else argmax.element_size(),
    )
    if tile.kernel == "forward_hopper":
        arguments = HopperForward(forward=arguments)
        ctypes.memmove(ctypes.addressof(arguments), program.tensor_map(documents, tile.columns), 128)
    defines = _defines(queries.dtype, tile, column_factors is not None, argmax is not None)
    kernel = program.load(tile.kernel, defines, queries.get_device())
    kernel.launch((blocks, -(-items // per_block), 1), tile.threads, tile.shared, arguments)


def _items_per_block(gpu: program.Gpu, tile: Tile, blocks: int, items: int) -> int:
    """How many documents, or pairs, a block walks through, when there are ``blocks`` sets of queries."""
    work = items * blocks / gpu.multiprocessors
    if tile.kernel == "forward_hopper":  # one block at a time on a multiprocessor
        per_block = -(-work // max(1, round(work / WARM_ITEMS)))
    else:
        per_block = min(32, work // BLOCKS_PER_MULTIPROCESSOR)
    return max(1, int(per_block), -(-items // 65535))


@functools.cache
def _defines(dtype: torch.dtype, tile: Tile, factors: bool, argmax: bool) -> program.Defines:
    rows = (("ROWS", str(tile.rows)),) if tile.kernel == "forward" else ()
    return (
        ("TOKEN", TOKEN[str(dtype)]),
        ("DIM", str(tile.dim)),
        *rows,
        ("COLUMNS", str(tile.columns)),
        ("STAGES", str(tile.stages)),
        ("FACTORS", str(int(factors))),
        ("ARGMAX", str(int(argmax))),
    )


def _column_factors(problem: Problem) -> Tensor | None:
    """c id; -0 where the token is absent, and there only."""
    factors, mask = problem.document_factors, problem.document_mask
    if mask is not None:
        factors = mask.float() if factors is None else factors
        return (factors + 0.0).masked_fill(~mask, -0.0)
    return None if factors is None else factors + 0.0
