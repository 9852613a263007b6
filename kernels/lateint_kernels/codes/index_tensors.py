"""An index and queries as tensors on one device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays

STAGED = 64 << 20  # bytes that are on their way to the device at a time


@dataclass(frozen=True, eq=False)
class IndexTensors:
    """What a search reads: the arrays of docs/format.md, with the documents of all segments end to end.

    Attributes:
        nbits: 1, 2, 4 or 8.
        width: components of a decoded token.
        centroids: ``[K, depth]`` int8, bytes less 128.
        cells: ``[C, depth]`` int8, the centres of the cells, likewise.
        cell_offsets: ``[C + 1]`` int64: the centroids of cell c are ``cell_offsets[c]:cell_offsets[c + 1]``.
        largest_cell: how many there are at most.
        offsets: ``[n + 1]`` int64: the tokens of document p are ``offsets[p]:offsets[p + 1]``.
        codes: ``[T, width * nbits / 8]`` uint8.
        scales: ``[T]`` uint8; None with 8 bits.
        centroid_low: ``[T]`` int16, the bits of uint16; None with 8 bits, as a search then needs none.
        centroid_high: ``[T]`` uint8; None up to 65,536 centroids and with 8 bits.
        list_offsets: ``[S, K + 2]`` int64: entries of the list of centroid c in segment s; list K is empty.
        list_documents: ``[P]`` int32, positions in the index.
        cuts: ``offsets`` on the host.
    """

    nbits: int
    width: int
    centroids: Tensor
    cells: Tensor
    cell_offsets: Tensor
    largest_cell: int
    offsets: Tensor
    codes: Tensor
    scales: Tensor | None
    centroid_low: Tensor | None
    centroid_high: Tensor | None
    list_offsets: Tensor
    list_documents: Tensor
    cuts: NDArray[np.int64]

    @property
    def documents(self) -> int:
        """How many, deleted ones included."""
        return len(self.cuts) - 1

    @property
    def bytes(self) -> int:
        """Of memory on the device."""
        return sum(x.numel() * x.element_size() for x in vars(self).values() if isinstance(x, Tensor))


class QueryTensors(NamedTuple):
    """Queries in integers: ``S(q, d) = constant + sum_i scales[i] * max_j <bytes[i], x_j>``, x_j of signed bytes.

    Attributes:
        bytes: ``[T, depth]`` int8.
        scales: ``[T]`` float64.
        constants: ``[Nq]`` float64.
        offsets: ``[Nq + 1]`` int64: query i is ``offsets[i]:offsets[i + 1]``.
        cuts: ``offsets`` on the host.
    """

    bytes: Tensor
    scales: Tensor
    constants: Tensor
    offsets: Tensor
    cuts: NDArray[np.int64]

    @property
    def longest(self) -> int:
        """Tokens of the longest query."""
        return int(np.diff(self.cuts).max(initial=0))

    def some(self, first: int, last: int) -> "QueryTensors":
        """Queries ``first:last``."""
        begin, end = (int(self.cuts[i]) for i in (first, last))
        return QueryTensors(
            self.bytes[begin:end],
            self.scales[begin:end],
            self.constants[first:last],
            self.offsets[first : last + 1] - begin,
            self.cuts[first : last + 1] - begin,
        )

    def at(self, picks: Tensor, offsets: Tensor, cuts: NDArray[np.int64]) -> "QueryTensors":
        """Queries of some of the tokens, see `sample`; the constant parts stay."""
        return self._replace(bytes=self.bytes[picks], scales=self.scales[picks], offsets=offsets, cuts=cuts)

    def joined(self) -> "QueryTensors":
        """All their tokens as one query, for what does not look at scales."""
        return self._replace(offsets=self.offsets[[0, -1]], cuts=self.cuts[[0, -1]])

    def padded(self, values: Tensor) -> Tensor:
        """Values of tokens ``[T, ...]`` by query: ``[Nq, longest, ...]``, with zeros after its end."""
        place = torch.arange(self.longest, device=values.device)
        row = self.offsets[:-1, None] + place  # [Nq, longest]
        inside = (row < self.offsets[1:, None]).reshape(*row.shape, *[1] * (values.ndim - 1))
        return torch.where(inside, values[row.clamp_(max=len(values) - 1)], 0)


def sample(cuts: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Evenly spread tokens of the queries that are much longer than ``count``, all tokens of the others.

    Args:
        cuts: ``[Nq + 1]``: query i has tokens ``cuts[i]:cuts[i + 1]``.
        count: as in `Limits.sampled`.

    Returns:
        ``[T']`` int64, tokens, and ``[Nq + 1]`` int64, the cuts of those; None where no query is that long.
    """
    lengths = np.diff(cuts)
    if count <= 0 or not (2 * lengths > 3 * count).any():
        return None
    picks = [
        first + (np.arange(count) * length // count if 2 * length > 3 * count else np.arange(length))
        for first, length in zip(cuts, lengths, strict=False)
    ]
    return np.concatenate(picks), np.concatenate([[0], np.cumsum([len(pick) for pick in picks])])


@dataclass(frozen=True, eq=False)
class RotationTensors:
    """What turns query tokens: see `lateint_kernels.codes.residual.rotate`, here without mean and step.

    Attributes:
        blocks: ``[blocks, block, block]`` float32.
        permutation: ``[width]`` int32; dim and above stand for zeros.
    """

    blocks: Tensor
    permutation: Tensor

    @classmethod
    def of(cls, codec: CodecArrays, device: torch.device) -> "RotationTensors":
        """Copies it to a device."""
        arrays = (codec.rotation, codec.permutation)
        return cls(*(torch.from_numpy(np.array(array)).to(device) for array in arrays))


class CentreTensors(NamedTuple):
    """What tokens are compared with: the nearest one has the largest ``<token, row> - half square``.

    Attributes:
        rows: ``[C, depth]`` int8.
        half_squares: ``[C]`` int32, half the square of each row's length, rounded up.
    """

    rows: Tensor
    half_squares: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "CentreTensors":
        """Computes the squares, few rows at a time."""
        step = max(1, (1 << 24) // rows.shape[1])
        squares = [part.to(torch.int32).square().sum(1, dtype=torch.int32) for part in rows.split(step)]
        return cls(rows, (torch.cat(squares) + 1) // 2)


def load(codec: CodecArrays, segments: Sequence[SegmentArrays], device: torch.device) -> IndexTensors:
    """Copies an index to a device, piece by piece, so that mapped files need not fit into memory.

    Raises:
        ValueError: there are 2^31 documents or more.
        MemoryError: a GPU has not enough memory left.
    """
    check_free(size(codec, segments), device)
    lists = load_lists(codec, segments, device)
    arrays = {}
    for ours, theirs in token_arrays(codec, segments).items():
        views = [getattr(segment, theirs) for segment in segments]
        arrays[ours] = _joined(views, device, np.int16 if ours == "centroid_low" else None)
    return replace(lists, offsets=torch.from_numpy(lists.cuts).to(device), **arrays)


def load_lists(codec: CodecArrays, segments: Sequence[SegmentArrays], device: torch.device) -> IndexTensors:
    """What finds candidates: centroids and lists. There are no tokens in it to score them on."""
    first = np.concatenate([[0], np.cumsum([len(segment.offsets) - 1 for segment in segments])]).astype(np.int64)
    if first[-1] >= 1 << 31:
        raise ValueError(f"an index on a device must have fewer than 2^31 documents, got {first[-1]:,}")
    tokens = np.concatenate([[0], np.cumsum([int(segment.offsets[-1]) for segment in segments])]).astype(np.int64)
    entries = np.concatenate([[0], np.cumsum([len(segment.list_documents) for segment in segments])]).astype(np.int64)
    count = len(codec.centroids)
    lists = [with_empty_list(s.dense_list_offsets(count)) + e for s, e in zip(segments, entries, strict=False)]
    return IndexTensors(
        nbits=codec.nbits,
        width=len(codec.permutation),
        centroids=_joined([codec.centroids], device).bitwise_xor_(128).view(torch.int8),
        cells=_joined([codec.cells], device).bitwise_xor_(128).view(torch.int8),
        cell_offsets=torch.from_numpy(np.array(codec.cell_offsets)).to(device),
        largest_cell=int(np.diff(codec.cell_offsets).max()),
        offsets=torch.empty(0, dtype=torch.int64, device=device),
        codes=torch.empty((0, segments[0].codes.shape[1]), dtype=torch.uint8, device=device),
        scales=None,
        centroid_low=None,
        centroid_high=None,
        list_offsets=torch.from_numpy(np.stack(lists)).to(device),
        list_documents=_joined([segment.list_documents for segment in segments], device, np.int32, first),
        cuts=np.concatenate([*(s.offsets[:-1] + t for s, t in zip(segments, tokens, strict=False)), tokens[-1:]]),
    )


def reload(
    held: IndexTensors,
    before: Sequence[SegmentArrays],
    codec: CodecArrays,
    segments: Sequence[SegmentArrays],
    device: torch.device,
) -> IndexTensors:
    """What `load` gives for ``segments``, where a device has ``before``: only what is new is copied there.

    Raises:
        ValueError, MemoryError: as `load`.
    """
    check_free(size(codec, segments), device)
    number = {id(segment.codes): i for i, segment in enumerate(before)}
    old = [number.get(id(segment.codes)) for segment in segments]
    fresh = [segment for segment, i in zip(segments, old, strict=True) if i is None]
    rows = held.cuts[_firsts(before, "offsets")]  # the first token of each segment there was, and how many there were

    def joined(tensor: Tensor, new: Tensor, ends: NDArray[np.int64], sizes: Sequence[int]) -> Tensor:
        """Pieces of a tensor there was and of what is new, in the order of the segments."""
        pieces, at = [], 0
        for i, length in zip(old, sizes, strict=True):
            if i is None:
                pieces.append(new[at : at + length])
                at += length
            else:
                pieces.append(tensor[int(ends[i]) : int(ends[i]) + length])
        return torch.cat(pieces)

    arrays = {}
    for ours, theirs in token_arrays(codec, segments).items():
        views = [getattr(segment, theirs) for segment in fresh] or [getattr(segments[0], theirs)[:0]]
        new = _joined(views, device, np.int16 if ours == "centroid_low" else None)
        arrays[ours] = joined(getattr(held, ours), new, rows, [int(segment.offsets[-1]) for segment in segments])
    entries, firsts = _firsts(segments, "list_documents"), _firsts(segments, "offsets")
    old_entries, old_firsts = _firsts(before, "list_documents"), _firsts(before, "offsets")
    views = [segment.list_documents for segment in fresh] or [segments[0].list_documents[:0]]
    lists = joined(held.list_documents, _joined(views, device, np.int32), old_entries, np.diff(entries).tolist())
    offsets = []
    for number_now, (i, segment) in enumerate(zip(old, segments, strict=True)):
        first, begin = int(firsts[number_now]), int(entries[number_now])
        if i is None:
            row = torch.from_numpy(with_empty_list(segment.dense_list_offsets(len(codec.centroids)))).to(device) + begin
        else:
            row, first = held.list_offsets[i] + (begin - int(old_entries[i])), first - int(old_firsts[i])
        offsets.append(row)
        lists[begin : int(entries[number_now + 1])] += first
    tokens = np.concatenate([[0], np.cumsum([int(segment.offsets[-1]) for segment in segments])]).astype(np.int64)
    cuts = np.concatenate([*(s.offsets[:-1] + t for s, t in zip(segments, tokens, strict=False)), tokens[-1:]])
    if len(cuts) > 1 << 31:
        raise ValueError(f"an index on a device must have fewer than 2^31 documents, got {len(cuts) - 1:,}")
    return replace(
        held,
        offsets=torch.from_numpy(cuts).to(device),
        list_offsets=torch.stack(offsets),
        list_documents=lists,
        cuts=cuts,
        **arrays,
    )


def _firsts(segments: Sequence[SegmentArrays], name: str) -> NDArray[np.int64]:
    """``[S + 1]``: where the documents or the list entries of each segment begin among those of all."""
    sizes = [len(getattr(segment, name)) - (name == "offsets") for segment in segments]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def with_empty_list(list_offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """``[K + 2]``: one more list, for what is no centroid."""
    return np.append(list_offsets, list_offsets[-1:])


def check_free(needed: int, device: torch.device) -> None:
    """Raises a MemoryError if a GPU has not so many bytes left."""
    if device.type != "cuda":
        return
    free = torch.cuda.mem_get_info(device)[0]
    if needed > free:
        raise MemoryError(
            f"the index takes {needed:,} bytes on {device}, of which only {free:,} are free; device_memory says how "
            "many it may take, and what does not fit stays on the host"
        )


def token_arrays(codec: CodecArrays, segments: Sequence[SegmentArrays]) -> dict[str, str]:
    """The fields of `IndexTensors` with a row for each token, and their names in `SegmentArrays`."""
    names = {"codes": "codes"}
    if codec.nbits < 8:  # else codes are the tokens
        names |= {"scales": "scales", "centroid_low": "centroid_ids"}
        if segments[0].centroid_high is not None:
            names["centroid_high"] = "centroid_high"
    return names


def size(codec: CodecArrays, segments: Sequence[SegmentArrays]) -> int:
    """Bytes that `load` needs: `IndexTensors.bytes` of what it gives."""
    arrays = [getattr(segment, name) for segment in segments for name in token_arrays(codec, segments).values()]
    documents = sum(len(segment.offsets) - 1 for segment in segments)
    return size_of_lists(codec, segments) + sum(int(array.nbytes) for array in arrays) + 8 * (1 + documents)


def size_of_lists(codec: CodecArrays, segments: Sequence[SegmentArrays]) -> int:
    """Bytes that `load_lists` needs."""
    of_centroids = codec.centroids.nbytes + codec.cells.nbytes + codec.cell_offsets.nbytes
    entries = sum(int(segment.list_documents.nbytes) for segment in segments)
    return of_centroids + 8 * (len(codec.centroids) + 2) * len(segments) + entries


def _joined(
    arrays: Sequence[NDArray[Any]], device: torch.device, seen_as: Any = None, moved_by: NDArray[np.int64] | None = None
) -> Tensor:
    """Arrays end to end on the device, their bits taken for another dtype, and a number added to each of them."""
    views = [array if seen_as is None else array.view(seen_as) for array in arrays]
    row = views[0].shape[1:]
    dtype = torch.from_numpy(np.empty(0, views[0].dtype)).dtype
    out = torch.empty((sum(map(len, views)), *row), dtype=dtype, device=device)
    rows = max(1, STAGED // max(1, views[0].itemsize * int(np.prod(row))))
    staging = torch.empty((min(rows, len(out)), *row), dtype=dtype, pin_memory=device.type == "cuda")
    at = 0
    for number, view in enumerate(views):
        for start in range(0, len(view), rows):
            piece = view[start : start + rows]
            part = staging[: len(piece)]
            np.copyto(part.numpy(), piece)
            target = out[at : at + len(piece)]
            target.copy_(part)
            if moved_by is not None:
                target += int(moved_by[number])
            at += len(piece)
    return out
