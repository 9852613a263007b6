"""Building on a device: what `lateint_kernels.codes.residual` and `centroids` beside it compute, bit for bit.

Sums of floats run in the order of csrc/codes/residual_generic.hpp, and products are rounded before they are
added. Tokens and centroids in bytes are signed here, less 128.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from lateint_kernels.codes.index_tensors import CentreTensors
from lateint_kernels.codes.torch.search import NUMBERS, kind, products, rotate

__all__ = ["all_of_cells", "best", "best_of_cells", "encode", "rotate"]  # the stages that Triton has too

START = {1: 1.596, 2: 0.996, 4: 0.335}  # the best distance of uniform levels for a Gaussian of unit variance
ENCODED = {"cpu": 1 << 22, "cuda": 1 << 24}  # components that are encoded at a time
ENTRIES = {"cpu": 1 << 22, "cuda": 1 << 24}  # of lists that are sorted at a time, if none is longer
ABSENT = -(2**62)  # the key of a centre that is not there
WIDEST = 16  # centres of a cell that `all_of_cells` has room for: kSubcells in csrc/codes/subcells.hpp


def to_bytes(scaled: Tensor, depth: int) -> Tensor:
    """As `lateint_kernels.codes.residual.to_bytes`, less 128: ``[n, depth]`` int8."""
    rows = scaled.round().clamp(-128, 127).to(torch.int8)
    return torch.nn.functional.pad(rows, (0, depth - rows.shape[1]))


def best(rows: Tensor, centres: CentreTensors, count: int) -> Tensor:
    """The ``count`` nearest of ``centres`` to rows ``[n, depth]``: keys ``[n, count]`` int64, best first.

    A key is ``(<row, centre> - half square) << 24``, the larger the nearer, plus C - 1 - id: the lowest id among equals
    has the largest key.
    """
    step = max(1, NUMBERS[kind(rows)] // len(centres.rows))
    return torch.cat(
        [_keys(part, centres, 0, len(centres.rows)).topk(count, dim=1).values for part in rows.split(step)]
    )


def best_of_cells(rows: Tensor, cells: Tensor, centres: CentreTensors, offsets: Tensor) -> Tensor:
    """The nearest centre among those of each of ``cells [n, m]``: keys as of `best`, ``[n, m]``.

    The centres of cell c are ``offsets[c]:offsets[c + 1]``, none of them empty. All tokens that look into a cell are
    multiplied with its centres at once.
    """
    found = torch.empty(cells.numel(), dtype=torch.int64, device=rows.device)
    for pairs, first, last in _pairs_of_cells(cells, offsets):
        for some in pairs.split(max(1, NUMBERS[kind(rows)] // (last - first))):
            found[some] = _keys(rows[some // cells.shape[1]], centres, first, last).amax(1)
    return found.reshape(cells.shape)


def all_of_cells(rows: Tensor, cells: Tensor, centres: CentreTensors, offsets: Tensor) -> Tensor:
    """Every centre of each of ``cells [n, m]``, which have WIDEST at most: keys ``[n, m, WIDEST]``, or ABSENT."""
    found = torch.full((cells.numel(), WIDEST), ABSENT, dtype=torch.int64, device=rows.device)
    for pairs, first, last in _pairs_of_cells(cells, offsets):
        for some in pairs.split(max(1, NUMBERS[kind(rows)] // (last - first))):
            found[some, : last - first] = _keys(rows[some // cells.shape[1]], centres, first, last)
    return found.reshape(*cells.shape, WIDEST)


def _pairs_of_cells(cells: Tensor, offsets: Tensor) -> Iterator[tuple[Tensor, int, int]]:
    """Of each cell: which of ``cells [n, m]``, counted through, are it, and its centres ``first:last``."""
    order = cells.flatten().argsort(stable=True)
    sizes = torch.bincount(cells.flatten(), minlength=len(offsets) - 1).tolist()
    yield from ((pairs, *bounds) for pairs, bounds in zip(order.split(sizes), pairwise(offsets.tolist()), strict=True))


def id_of(keys: Tensor, count: int) -> Tensor:
    """Of how many centres: ids int32."""
    return (count - 1 - (keys & 0xFFFFFF)).to(torch.int32)


def means(rows: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``[count, depth]`` int8: the mean of the rows of each id, rounded half up; and how many there are ``[count]``."""
    sums, members = cluster_sums(rows, ids, count)
    counts = members.clamp(min=1)[:, None]
    found = torch.empty((count, rows.shape[1]), dtype=torch.int8, device=rows.device)
    step = max(1, ENCODED[kind(rows)] // rows.shape[1])
    for target, total, n in zip(found.split(step), sums.split(step), counts.split(step), strict=True):
        target.copy_(torch.div(2 * total.to(torch.int64) + n, 2 * n, rounding_mode="floor"))
    return found, members


def encode(scaled: Tensor, ids: Tensor, centroids: Tensor, nbits: int) -> tuple[Tensor, Tensor]:
    """As `lateint_kernels.codes.residual.encode`: codes ``[n, width * nbits / 8]`` and scales ``[n]``, uint8."""
    n, width = scaled.shape
    if nbits == 8:
        rows = to_bytes(scaled, width).view(torch.uint8) ^ 128
        return rows, torch.zeros(n, dtype=torch.uint8, device=scaled.device)
    step = max(1, ENCODED[kind(scaled)] // width)
    parts = zip(scaled.split(step), ids.split(step), strict=True)
    codes, scales = zip(*(_encoded(part, centroids[some][:, :width], nbits) for part, some in parts), strict=True)
    return torch.cat(codes), torch.cat(scales)


def _encoded(scaled: Tensor, centroid: Tensor, nbits: int) -> tuple[Tensor, Tensor]:
    """Of tokens next to their centroids ``[n, width]``."""
    n, width = scaled.shape
    top, unit = 2**nbits - 1, 16 if nbits == 4 else 4
    rest = scaled.clamp(-128, 127) - centroid.float()
    distance = START[nbits] * torch.sqrt(_sums(rest * rest) / scaled.new_tensor(width))
    for _ in range(2):
        level = _levels(rest, 1 / distance, top) - top / 2
        fitted = _sums(rest * level) / _sums(level * level)
        distance = torch.where(distance > 0, fitted, distance)
    scale = (distance * unit).round().clamp(1, 255)
    code = _levels(rest, unit / scale, top).to(torch.int16)
    code = _in_range(code, scale.to(torch.int16), centroid.to(torch.int16), nbits)
    planes = code.to(torch.uint8).reshape(n, 8 // nbits, width * nbits // 8)
    packed = planes[:, 0].clone()
    for number in range(1, 8 // nbits):
        packed |= planes[:, number] << (number * nbits)
    return packed, scale.to(torch.uint8)


def cluster_sums(rows: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sums of the rows of each id, ``[count, depth]`` int32, and how many there are ``[count]`` int64."""
    sums = torch.zeros((count, rows.shape[1]), dtype=torch.int32, device=rows.device)
    step = max(1, NUMBERS[kind(rows)] // rows.shape[1])
    for part, numbers in zip(rows.split(step), ids.split(step), strict=True):
        sums.index_add_(0, numbers, part.to(torch.int32))  # integers: the same in any order
    return sums, torch.bincount(ids, minlength=count)


def invert(ids: Tensor, offsets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `lateint_kernels.codes.centroids.invert`: list_offsets ``[count + 1]`` int64 and list_documents int32.

    Lists are made a range of centroids at a time, so that memory for sorting does not grow with the tokens.
    """
    ends = torch.bincount(ids, minlength=count).cumsum(0).tolist()
    sizes, lists, first, before = [], [], 0, 0
    while first < count:
        last = max(first + 1, bisect_right(ends, before + ENTRIES[kind(ids)]))
        some = (ids >= first) & (ids < last)
        token = some.nonzero()[:, 0]
        owner = torch.searchsorted(offsets, token, right=True) - 1
        # Of 8 bytes an entry here, and 16 more while they are sorted.
        pairs = torch.unique_consecutive((((ids[token] - first).to(torch.int64) << 32) + owner).sort().values)
        sizes.append(torch.bincount(pairs >> 32, minlength=last - first))
        lists.append((pairs & 0x7FFFFFFF).to(torch.int32))
        first, before = last, ends[last - 1]
    return torch.nn.functional.pad(torch.cat(sizes).cumsum(0), (1, 0)), torch.cat(lists)


def _keys(rows: Tensor, centres: CentreTensors, first: int, last: int) -> Tensor:
    """``[n, last - first]`` keys of centres ``first:last``."""
    order = len(centres.rows) - 1 - torch.arange(first, last, device=rows.device)
    return ((products(rows, centres.rows[first:last]) - centres.half_squares[first:last]) << 24) + order


def _levels(rest: Tensor, inverse: Tensor, top: int) -> Tensor:
    return (rest * inverse[:, None] + top / 2).round().clamp(0, top)


def _sums(terms: Tensor) -> Tensor:
    """Of rows ``[n, width]``: eight lanes, each in order, then the lanes."""
    lanes = terms.reshape(len(terms), -1, 8)
    total = torch.zeros_like(lanes[:, 0])
    for i in range(lanes.shape[1]):
        total = total + lanes[:, i]
    a, b, c, d = (total[:, i] + total[:, i + 4] for i in range(4))
    return (a + c) + (b + d)


def _in_range(code: Tensor, scale: Tensor, centroid: Tensor, nbits: int) -> Tensor:
    """Where a centroid and its level leave the bytes, the nearest code that does not is taken."""
    reached = _decoded(code, scale, centroid, nbits)
    outside = ((reached > 127) | (reached < -128)).any(1).nonzero()[:, 0]  # few tokens, if any
    if len(outside):
        code[outside] = _moved(code[outside], scale[outside], centroid[outside], nbits)
    return code


def _moved(code: Tensor, scale: Tensor, centroid: Tensor, nbits: int) -> Tensor:
    top = 2**nbits - 1
    for _ in range(top):
        code = code - ((_decoded(code, scale, centroid, nbits) > 127) & (code > 0)).to(torch.int16)
    for _ in range(top):
        code = code + ((_decoded(code, scale, centroid, nbits) < -128) & (code < top)).to(torch.int16)
    return code


def _decoded(code: Tensor, scale: Tensor, centroid: Tensor, nbits: int) -> Tensor:
    """What codes stand for, not cut to a byte."""
    top, unit = 2**nbits - 1, 16 if nbits == 4 else 4
    twice = 2 * code - top
    return centroid + torch.sign(twice) * ((twice.abs() * scale[:, None] + unit) // (2 * unit))
