"""Products of queries with residual codes by the kernel best_products.cu: what Triton's has, with packed decoding."""

import ctypes
from ctypes import c_int, c_void_p

import torch
from torch import Tensor

from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors
from lateint_kernels.gpu import program
from lateint_kernels.gpu.arguments import pointer
from lateint_kernels.gpu.support import why_not

__all__ = ["best_products", "takes", "why_not"]

THREADS = 128
WARPS = THREADS // 32
TILES = (1, 2, 4, 8, 12, 16, 20)  # of 16 query tokens, whose maxima a warp holds in registers
BLOCKS_PER_MULTIPROCESSOR = 16  # at least, so that the last ones leave little idle
MOST_EACH = 16 * WARPS  # candidates of a block: by then putting its queries in order costs little
WIDTHS = {1: (128, 256), 2: (64, 128, 256), 4: (64, 128, 256), 8: (64, 128, 256)}  # by bits


class BestProducts(ctypes.Structure):
    """csrc/cuda/best_products.cuh, byte for byte."""

    _fields_ = (
        ("queries", c_void_p),
        ("query_offsets", c_void_p),
        ("positions", c_void_p),
        ("offsets", c_void_p),
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("centroid_low", c_void_p),
        ("centroid_high", c_void_p),
        ("centroids", c_void_p),
        ("best", c_void_p),
        ("depth", c_int),
        ("candidates", c_int),
        ("longest", c_int),
        ("pieces", c_int),
        ("each", c_int),
    )


def takes(index: IndexTensors) -> bool:
    """Whether the kernel has tokens of this width: four lanes share one, each with whole words of its codes."""
    return index.width in WIDTHS[index.nbits]


def best_products(index: IndexTensors, queries: QueryTensors, positions: Tensor) -> Tensor:
    """As `lateint_kernels.codes.triton.search.best_products`, of an index that it takes."""
    Nq, C = positions.shape
    best = torch.empty((Nq, C, queries.longest), dtype=torch.int32, device=positions.device)
    if not best.numel():
        return best
    tiles, pieces = tiles_for(queries.longest)
    gpu = program.gpu(positions.get_device())
    each = max(WARPS, min(MOST_EACH, Nq * pieces * C // (gpu.multiprocessors * BLOCKS_PER_MULTIPROCESSOR)))
    each = max(each, -(-C // 65535))
    positions = positions.contiguous()
    arguments = BestProducts(
        pointer(queries.bytes),
        pointer(queries.offsets),
        pointer(positions),
        pointer(index.offsets),
        pointer(index.codes),
        pointer(index.scales),
        pointer(index.centroid_low),
        pointer(index.centroid_high),
        pointer(index.centroids),
        pointer(best),
        index.centroids.shape[1],
        C,
        queries.longest,
        pieces,
        each,
    )
    sizes = {
        "NBITS": index.nbits,
        "WIDTH": index.width,
        "HIGH": int(index.centroid_high is not None),
        "TILES": tiles,
    }
    defines = tuple((name, str(size)) for name, size in sizes.items())
    kernel = program.load("best_products", defines, positions.get_device())
    shared = tiles * 16 * (index.width + 4)
    kernel.launch((Nq * pieces, -(-C // each), 1), THREADS, shared, arguments)
    return best


def tiles_for(longest: int) -> tuple[int, int]:
    """Tiles of a piece, and pieces, of queries of up to so many tokens.

    >>> [tiles_for(longest) for longest in (1, 32, 100, 320, 400)]
    [(1, 1), (2, 1), (8, 1), (20, 1), (16, 2)]
    """
    pieces = -(-longest // (16 * TILES[-1]))
    wanted = -(-longest // (16 * pieces))
    return next(size for size in TILES if size >= wanted), pieces
