"""How MaxSim and its gradients are cut up: from shapes and the architecture alone, nothing is tried out at run time."""

from dataclasses import dataclass
from functools import lru_cache

import triton

from lateint_kernels.gpu.launch import Architecture


@dataclass(frozen=True)
class Tiles:
    """How the products are cut up.

    Args:
        block_m: query rows of a program.
        block_n: document tokens of a tile.
        first: components of a token that are multiplied at a time.
        rest: those after them, if a program holds its queries, 0 if there are none.
        resident: a program holds its queries; otherwise they are read again for every tile.
        stages: tiles on their way at a time.
        warps: of a program.
        shared: bytes of shared memory that a program needs for tokens.
        registers: of a thread, at most; None: as many as the compiler likes.
    """

    block_m: int
    block_n: int
    first: int
    rest: int
    resident: bool
    stages: int
    warps: int
    shared: int
    registers: int | None = None


@dataclass(frozen=True)
class ScatterTiles:
    """How gradients of documents are cut up.

    Args:
        block_t: document tokens of a program.
        block_d: components of a token at a time.
        block_k: query tokens that are multiplied at a time.
        width: document tokens of a bucket, a multiple of block_t.
        buckets: of a document.
        segment: query tokens that are put in order together, at least.
        entries: of them, how many at a time.
        stages: 2 steps, of what to load and of the query tokens, each 2 ahead of the product.
    """

    block_t: int
    block_d: int
    block_k: int
    width: int
    buckets: int
    segment: int
    entries: int
    stages: int = 5


@lru_cache
def piece_size(length: int, most: int) -> int:
    """Into pieces of how many rows to cut queries of a length: little padding, then few pieces.

    >>> [piece_size(length, 128) for length in (20, 32, 180, 320, 1000)]
    [8, 32, 64, 64, 128]
    """
    sizes = [size for size in (8, 16, 32, 64, 128, 256) if size <= most]
    return min(sizes, key=lambda size: triton.cdiv(length, size) * (size + 0.5))


@lru_cache
def tiles(arch: Architecture, rows: int, Ld: int, dim: int, itemsize: int) -> Tiles:
    """The products of ``rows`` query rows with documents of Ld tokens, of ``dim`` components of so many bytes."""
    if itemsize == 4:
        side = arch.float32_block
        shape = min(side, _power_of_two(rows)), min(side, _power_of_two(Ld))
        return _streamed(arch, *shape, arch.float32_step, itemsize)
    block_m = min(arch.block_m, _power_of_two(rows))
    by_waste = sorted(arch.block_n, key=lambda n: triton.cdiv(Ld, n) * (n + 16))
    first, rest = _components(dim)
    choices = [(two, n, arch.stages) for two in (2, 1) for n in by_waste] + [(1, n, 2) for n in by_waste]
    for programs, block_n, stages in choices if first + rest <= 384 else ():  # two programs hide each other's waiting
        shared = (block_m + stages * block_n) * (first + rest) * itemsize
        if shared <= arch.shared // programs - 1536:
            return Tiles(block_m, block_n, first, rest, True, stages, _warps(arch, block_m, block_n), shared)
    return _streamed(arch, block_m, max(arch.block_n), 64, itemsize)


def _streamed(arch: Architecture, block_m: int, block_n: int, first: int, itemsize: int) -> Tiles:
    stages = arch.stages
    while stages > 2 and stages * (block_m + block_n) * first * itemsize > arch.shared - 1536:
        stages -= 1
    shared = stages * (block_m + block_n) * first * itemsize
    return Tiles(block_m, block_n, first, 0, False, stages, _warps(arch, block_m, block_n), shared)


def _components(dim: int) -> tuple[int, int]:
    """A dim as a sum of two powers of two, or as one that is larger.

    >>> [_components(dim) for dim in (40, 96, 100, 128, 320)]
    [(32, 16), (64, 32), (128, 0), (128, 0), (256, 64)]
    """
    whole = _power_of_two(dim)
    if whole == dim:
        return whole, 0
    half = whole // 2
    rest = _power_of_two(dim - half)
    return (half, rest) if half >= 16 and half + rest < whole else (whole, 0)


def _warps(arch: Architecture, block_m: int, block_n: int) -> int:
    return 8 if block_m * block_n >= 8 * arch.warp_numbers else 4


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not smaller, at least the 16 that a product needs."""
    return max(16, int(triton.next_power_of_2(number)))


@lru_cache
def gather_tiles(arch: Architecture, rows: int, dim: int) -> tuple[int, int, int]:
    """Components, rows, and documents at a time of a program of `query_gradients`.

    Few rows leave little to do at a time, so that more documents are taken: programs should be many.
    """
    block_d = _power_of_two(dim)
    together = max(1, 4096 // block_d)
    wanted = max(1, rows // (arch.gathering * arch.multiprocessors))
    most = min(16, together)
    each = min(most, triton.next_power_of_2(wanted + 1) // 2)
    return block_d, each, together // each


@lru_cache
def scatter_tiles(arch: Architecture, Ld: int, dim: int, itemsize: int) -> ScatterTiles:
    """How gradients of documents of Ld tokens are cut up."""
    block_t = min(64, _power_of_two(Ld))
    block_d, block_k = (128, arch.block_k) if itemsize == 2 else (64, 32)
    width = max(block_t, triton.next_power_of_2(triton.cdiv(Ld, 32)))
    buckets = triton.next_power_of_2(triton.cdiv(Ld, width))
    block_d, entries = min(block_d, _power_of_two(dim)), min(1024, 4096 // buckets)
    return ScatterTiles(block_t, block_d, block_k, width, buckets, 8192, entries)


@lru_cache
def documents_each(blocks: int, Nd: int, tiles_each: int, slots: int, most: int) -> int:
    """How many documents a program takes, so that all programs end at about the same time.

    Programs run in waves of ``slots``; reading its queries costs a program as much as about 4 tiles.
    """
    choices = range(1, min(most, max(Nd, 1)) + 1)

    def waiting(n: int) -> tuple[int, int]:
        return triton.cdiv(blocks * triton.cdiv(Nd, n), slots) * (n * tiles_each + 4), n

    return min(choices, key=waiting)
