"""Products of queries with centroids and with residual codes, in torch: integers, and exact; and their sums."""

import itertools

import torch
from torch import Tensor

from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors, RotationTensors

NUMBERS = {"cpu": 1 << 22, "cuda": 1 << 27}  # products, or components of decoded tokens, at a time
LEAST = -(1 << 31)  # stands for a product that is none
EXACT_DEPTH = 1024  # 1024 * 127 * 128 < 2^24: float32 adds such products exactly, in any order


def rotate(tokens: Tensor, rotation: RotationTensors) -> Tensor:
    """Query tokens ``[n, dim]`` float32 permuted and turned, ``[n, width]``.

    Sums run as in csrc/codes/residual_generic.hpp: over components in order, products rounded before they are added.
    """
    blocks, block = rotation.blocks.shape[:2]
    padded = torch.nn.functional.pad(tokens, (0, blocks * block - tokens.shape[1]))
    parts = padded[:, rotation.permutation].reshape(len(tokens), blocks, block)
    total = torch.zeros_like(parts)
    for k in range(block):
        total = total + parts[:, :, k, None] * rotation.blocks[:, k]
    return total.reshape(len(tokens), blocks * block)


def probe(rows: Tensor, centres: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` centres ``[K, depth]`` of the largest products with each row: products ``[T, count]`` and ids.

    Best first, the lowest id among equals.
    """
    step = max(1, NUMBERS[kind(centres)] // len(centres))
    return _joined([_best_of(products(part, centres), count) for part in rows.split(step)])


def probe_cells(index: IndexTensors, rows: Tensor, cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As `probe`, of the centroids in the cells of each row, ``[T, c]``, all different.

    Where they hold fewer than ``count``, products are `LEAST` and ids any. Here that takes no less than all centroids.
    """
    cell_of = torch.arange(len(index.cells), device=cells.device).repeat_interleave(
        index.cell_offsets.diff(), output_size=len(index.centroids)
    )
    found = []
    step = max(1, NUMBERS[kind(rows)] // len(index.centroids))
    for part, some in zip(rows.split(step), cells.split(step), strict=True):
        read = torch.zeros((len(part), len(index.cells)), dtype=torch.bool, device=cells.device).scatter_(1, some, 1)
        found.append(_best_of(torch.where(read[:, cell_of], products(part, index.centroids), LEAST), count))
    return _joined(found)


def _best_of(found: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest of products ``[n, K]`` int64, and where they are."""
    K = found.shape[1]
    best = ((found << 24) + (K - 1 - torch.arange(K, device=found.device))).topk(count, dim=1).values
    return (best >> 24).to(torch.int32), K - 1 - (best & 0xFFFFFF)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    products, ids = zip(*parts, strict=True)
    return torch.cat(products), torch.cat(ids)


def best_products(index: IndexTensors, queries: QueryTensors, positions: Tensor) -> Tensor:
    """``[Nq, C, longest]`` int32: ``max_j <q_i, x_j>`` over the tokens of the documents at ``positions [Nq, C]``.

    A negative position stands for none. What belongs to no query token or to no document token is any number.
    """
    out = torch.zeros((*positions.shape, queries.longest), dtype=torch.int32, device=positions.device)
    for number in range(len(positions)):
        rows = queries.bytes[queries.cuts[number] : queries.cuts[number + 1]]
        wanted = positions[number].clamp(min=0)
        lengths = (index.offsets[wanted + 1] - index.offsets[wanted]).masked_fill(positions[number] < 0, 0)
        for first, last in _cuts(lengths, max(1, NUMBERS[kind(rows)] // max(index.width, len(rows)))):
            out[number, first:last, : len(rows)] = _best(index, rows, wanted[first:last], lengths[first:last])
    return out


def _best(index: IndexTensors, rows: Tensor, positions: Tensor, lengths: Tensor) -> Tensor:
    """``[n, len(rows)]``: the maxima over the tokens of each of n documents."""
    ends = lengths.cumsum(0)
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    token = torch.arange(len(owner), device=lengths.device) + (index.offsets[positions] - ends + lengths)[owner]
    found = products(decode(index, token), rows[:, : index.width])  # [tokens, len(rows)]
    best = torch.full((len(lengths), len(rows)), torch.iinfo(torch.int32).min, device=rows.device, dtype=torch.int32)
    return best.scatter_reduce_(0, owner[:, None].expand(-1, len(rows)), found.to(torch.int32), "amax")


def weighted(best: Tensor, scales: Tensor, constants: Tensor) -> Tensor:
    """``constants[q] + sum_i scales[q, i] * best[q, c, i]``: ``[Nq, C]`` float64, i in order, as `Engine` adds."""
    total = constants[:, None].expand(best.shape[:2])
    for i in range(best.shape[2]):
        total = total + scales[:, i, None] * best[:, :, i]
    return total


def decode(index: IndexTensors, tokens: Tensor) -> Tensor:
    """Tokens ``[n]`` as signed bytes ``[n, width]``; see docs/format.md."""
    codes = index.codes[tokens]
    if index.nbits == 8:
        return (codes ^ 128).view(torch.int8)
    assert index.scales is not None
    top, unit = 2**index.nbits - 1, 16 if index.nbits == 4 else 4
    shifts = torch.arange(0, 8, index.nbits, device=codes.device, dtype=torch.uint8)
    planes = (codes[:, None, :] >> shifts[:, None]) & top  # [n, 8 / nbits, width * nbits / 8]
    twice = 2 * planes.reshape(len(codes), index.width).to(torch.int16) - top
    scale = index.scales[tokens].to(torch.int16)[:, None]
    level = torch.sign(twice) * ((twice.abs() * scale + unit) // (2 * unit))
    centroid = index.centroids[centroid_ids(index, tokens)][:, : index.width]
    return (centroid + level).to(torch.int8)


def centroid_ids(index: IndexTensors, tokens: Tensor) -> Tensor:
    """``[n]`` int64."""
    assert index.centroid_low is not None
    ids = index.centroid_low[tokens].to(torch.int64) & 0xFFFF
    return ids if index.centroid_high is None else ids + (index.centroid_high[tokens].to(torch.int64) << 16)


def products(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T`` of signed bytes, ``[m, n]`` int64, exact."""
    dtype = torch.float32 if left.shape[1] <= EXACT_DEPTH else torch.float64
    return (left.to(dtype) @ right.to(dtype).T).to(torch.int64)


def _cuts(lengths: Tensor, most: int) -> list[tuple[int, int]]:
    """First and last of runs of documents with about so many tokens together."""
    number = (lengths.cumsum(0) - lengths).div(most, rounding_mode="floor")
    sizes = torch.unique_consecutive(number, return_counts=True)[1].tolist()
    firsts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return list(itertools.pairwise(firsts))


def kind(tensor: Tensor) -> str:
    """Of the device: which limit holds."""
    return "cuda" if tensor.device.type == "cuda" else "cpu"
