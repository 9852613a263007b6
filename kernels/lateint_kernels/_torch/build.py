"""Building on a device: what `lateint_kernels.residual` and `lateint_kernels.centroids` compute, bit for bit.

Sums of floats run in the order of csrc/residual_generic.hpp, and products are rounded before they are added. Tokens and
centroids in bytes are signed here, less 128.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lateint_kernels._torch import codes
from lateint_kernels._torch.codes import NUMBERS, kind, products
from lateint_kernels._torch.index_tensors import RotationTensors
from lateint_kernels.engine import CodecArrays

START = {1: 1.596, 2: 0.996, 4: 0.335}  # the best distance of uniform levels for a Gaussian of unit variance
NEVER = -(1 << 62)


@dataclass(frozen=True, eq=False)
class CentroidTensors:
    """Centroids grouped by cell; see `lateint_kernels.centroids.Assigner`.

    Attributes:
        rows: ``[K, depth]`` int8.
        cells: ``[C, depth]`` int8.
        cell_offsets: ``[C + 1]`` numbers on the host.
    """

    rows: Tensor
    cells: Tensor
    cell_offsets: list[int]


def rotate(tokens: Tensor, codec: CodecArrays) -> Tensor:
    """As `lateint_kernels.residual.rotate`: ``[n, dim]`` of any float type to ``[n, width]`` float32."""
    mean = torch.from_numpy(np.array(codec.mean)).to(tokens.device)
    inverse = float(np.float32(1) / np.float32(codec.step))
    return codes.rotate((tokens.float() - mean) * inverse, RotationTensors.of(codec, tokens.device))


def to_bytes(scaled: Tensor, depth: int) -> Tensor:
    """As `lateint_kernels.residual.to_bytes`, less 128: ``[n, depth]`` int8."""
    rows = scaled.round().clamp(-128, 127).to(torch.int8)
    return torch.nn.functional.pad(rows, (0, depth - rows.shape[1]))


def nearest(rows: Tensor, centroids: CentroidTensors, cells: int = 0) -> Tensor:
    """As `lateint_kernels.centroids.Assigner.nearest`: ids ``[n]`` int64 for tokens ``[n, depth]`` int8.

    All tokens that look into a cell are multiplied with its centroids at once.
    """
    count = len(centroids.cells)
    if cells <= 0 or cells >= count:
        return len(centroids.rows) - 1 - (_best(rows, centroids.rows, 0, len(centroids.rows)) & 0xFFFFFF)
    step = max(1, NUMBERS[kind(rows)] // count)
    last = count - 1 - torch.arange(count, device=rows.device)
    bias = _half_squares(centroids.cells)
    found = [
        (((products(part, centroids.cells) - bias) << 24) + last).topk(cells, dim=1).values for part in rows.split(step)
    ]
    routed = count - 1 - (torch.cat(found) & 0xFFFFFF)  # [n, cells]
    order = routed.flatten().argsort(stable=True)
    sizes = torch.bincount(routed.flatten(), minlength=count).tolist()
    best = torch.full((len(rows),), NEVER, device=rows.device)
    start = 0
    for cell, size in enumerate(sizes):
        if size:
            token = order[start : start + size] // cells  # each once
            keys = _best(rows[token], centroids.rows, *centroids.cell_offsets[cell : cell + 2])
            best[token] = torch.maximum(best[token], keys)
            start += size
    return len(centroids.rows) - 1 - (best & 0xFFFFFF)


def train(rows: Tensor, count: int, *, iterations: int, cells_searched: int, seed: int) -> CentroidTensors:
    """k-means of ``rows [S, depth]`` int8, two levels deep as in `lateint.clustering.train`, from random tokens.

    The same seed gives the same centroids on one kind of device; the random numbers are torch's, not NumPy's.
    """
    generator = torch.Generator(rows.device).manual_seed(seed)
    count = min(count, len(rows))
    start = torch.randperm(len(rows), generator=generator, device=rows.device)[:count].sort().values
    cells = torch.randperm(count, generator=generator, device=rows.device)[: max(1, round(count**0.5))].sort().values
    centroids = group(rows[start], rows[start][cells], generator)
    for _ in range(iterations):
        ids = nearest(rows, centroids, cells_searched)
        centroids = group(means(rows, ids, count, generator), centroids.cells, generator)
    return centroids


def group(rows: Tensor, cells: Tensor, generator: torch.Generator, iterations: int = 4) -> CentroidTensors:
    """Sorts centroids ``[K, depth]`` into cells, none of them empty, starting from ``cells``."""
    for _ in range(iterations):
        cells = means(rows, nearest(rows, CentroidTensors(cells, cells[:1], [0, len(cells)])), len(cells), generator)
    ids = nearest(rows, CentroidTensors(cells, cells[:1], [0, len(cells)]))
    members = torch.bincount(ids, minlength=len(cells))
    offsets = torch.nn.functional.pad(members[members > 0].cumsum(0), (1, 0)).tolist()
    return CentroidTensors(rows[ids.argsort(stable=True)], cells[members > 0], offsets)


def means(rows: Tensor, ids: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``[count, depth]``: the mean of the rows of each id, rounded half up; a random row where there is none."""
    sums, members = cluster_sums(rows, ids, count)
    counts = members.clamp(min=1)[:, None]
    found = torch.div(2 * sums.to(torch.int64) + counts, 2 * counts, rounding_mode="floor").to(torch.int8)
    other = torch.randint(len(rows), (count,), generator=generator, device=rows.device)
    return torch.where(members[:, None] > 0, found, rows[other])


def encode(scaled: Tensor, ids: Tensor, centroids: Tensor, nbits: int) -> tuple[Tensor, Tensor]:
    """As `lateint_kernels.residual.encode`: codes ``[n, width * nbits / 8]`` and scales ``[n]``, uint8."""
    n, width = scaled.shape
    if nbits == 8:
        rows = to_bytes(scaled, width).view(torch.uint8) ^ 128
        return rows, torch.zeros(n, dtype=torch.uint8, device=scaled.device)
    top, unit = 2**nbits - 1, 16 if nbits == 4 else 4
    centroid = centroids[ids][:, :width]
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
    """As `lateint_kernels.centroids.cluster_sums`, of signed bytes: ``[count, depth]`` int32 and ``[count]`` int64."""
    sums = torch.zeros((count, rows.shape[1]), dtype=torch.int32, device=rows.device)
    step = max(1, NUMBERS[kind(rows)] // rows.shape[1])
    for part, numbers in zip(rows.split(step), ids.split(step), strict=True):
        sums.index_add_(0, numbers, part.to(torch.int32))  # integers: the same in any order
    return sums, torch.bincount(ids, minlength=count)


def invert(ids: Tensor, offsets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `lateint_kernels.centroids.invert`: list_offsets ``[count + 1]`` int64 and list_documents int32."""
    documents = len(offsets) - 1
    owner = torch.repeat_interleave(torch.arange(documents, device=ids.device), offsets.diff(), output_size=len(ids))
    # Of 8 bytes a token here, and 16 more while they are sorted.
    pairs = torch.unique_consecutive((ids.to(torch.int64) * max(1, documents) + owner).sort().values)
    sizes = torch.bincount(pairs // max(1, documents), minlength=count)
    return torch.nn.functional.pad(sizes.cumsum(0), (1, 0)), (pairs % max(1, documents)).to(torch.int32)


def _best(rows: Tensor, centroids: Tensor, first: int, last: int) -> Tensor:
    """``[n]`` keys of the nearest of centroids ``first:last``: the larger the nearer, and K - 1 - id in 24 bits."""
    some = centroids[first:last]
    bias = _half_squares(some)
    order = len(centroids) - 1 - torch.arange(first, last, device=rows.device)
    step = max(1, NUMBERS[kind(rows)] // len(some))
    return torch.cat([(((products(part, some) - bias) << 24) + order).amax(1) for part in rows.split(step)])


def _half_squares(rows: Tensor) -> Tensor:
    return (rows.to(torch.int64).square().sum(1) + 1) // 2


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
    top, unit = 2**nbits - 1, 16 if nbits == 4 else 4

    def decoded(code: Tensor) -> Tensor:
        twice = 2 * code - top
        return centroid + torch.sign(twice) * ((twice.abs() * scale[:, None] + unit) // (2 * unit))

    for _ in range(top):
        code = code - ((decoded(code) > 127) & (code > 0)).to(torch.int16)
    for _ in range(top):
        code = code + ((decoded(code) < -128) & (code < top)).to(torch.int16)
    return code
