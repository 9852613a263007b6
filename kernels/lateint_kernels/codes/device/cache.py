"""Documents whose codes stay on the host, in memory or in mapped files: those looked at last are on the device."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels.codes import index_tensors
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.codes.index_tensors import IndexTensors, check_free, load_lists, size_of_lists, token_arrays

ROWS = 16  # of tokens, which a document counts for at least: so many places there are in the cache


class DocumentCache:
    """The token arrays of an index, of which a part is on the device.

    The cache has two halves. Documents are added to one until it is full; then the other is emptied and becomes the one
    they are added to. So the documents of the last search are there, and many of those before it.

    Args:
        memory: bytes on the device, of which centroids and lists take what they need and documents the rest.

    Raises:
        MemoryError: ``memory`` is too little, and the message says how much the index needs at least; or the device
            has not so much left.

    Attributes:
        index: centroids and lists on the device, and no tokens.
        most: tokens of different documents that are there at once, for sure.
        longest: tokens that the longest document counts for.
    """

    def __init__(
        self, codec: CodecArrays, segments: Sequence[SegmentArrays], device: torch.device, memory: int
    ) -> None:
        check_free(memory, device)
        self.index = load_lists(codec, segments, device)
        self._arrays = token_arrays(codec, segments)
        lengths = np.diff(self.index.cuts)
        self.longest = max(ROWS, int(lengths.max(initial=0)))
        fixed, row = size_of_lists(codec, segments), _row_bytes(segments[0], self._arrays.values())
        self.most = (memory - fixed) // (2 * row) // ROWS * ROWS
        if self.most < self.longest:
            least = fixed + 2 * row * (-(-self.longest // ROWS) * ROWS)
            raise MemoryError(f"device_memory must be at least {least:,} bytes for this index, got {memory:,}")
        self.most = min(self.most, int(np.maximum(lengths, ROWS).sum()) // ROWS * ROWS + ROWS)
        self._segments = segments
        self._first = np.concatenate([[0], np.cumsum([len(segment.offsets) - 1 for segment in segments])])
        self._held = self._allocated(device)
        self._place = np.full(self.index.documents, -1, np.int32)  # of a document; -1: it is not there
        self._added: list[list[NDArray[np.int64]]] = [[], []]  # documents of each half
        self._half, self._rows, self._places, self._counted = 0, 0, 0, 0
        self._lock = threading.Lock()

    def hold(self, positions: Tensor) -> Iterator[tuple[IndexTensors, Tensor]]:
        """Has documents ``[Nq, C]`` on the device, a few columns after the other.

        Gives an index that knows them by other positions, and these, ``[Nq, c]``; -1 stays. Both are good until the
        next ones are asked for. One column must fit, so ``Nq * longest <= most``.
        """
        wanted = positions.cpu().numpy()
        with self._lock:
            for first, last in self._columns(wanted):
                part = wanted[:, first:last]
                self._bring(np.unique(part[part >= 0]))
                places = np.where(part < 0, -1, 2 * self._place[part].astype(np.int64))
                yield self._held, torch.from_numpy(places).to(self._held.codes.device)

    def _allocated(self, device: torch.device) -> IndexTensors:
        """Room for both halves. A document's tokens need not follow those of the one before it: each place has a
        begin and an end of its own in ``offsets``, and stands for a position of twice its number."""
        rows, arrays = 2 * self.most, {}
        for ours, theirs in self._arrays.items():
            array = getattr(self._segments[0], theirs)
            dtype = torch.int16 if ours == "centroid_low" else torch.uint8
            arrays[ours] = torch.zeros((rows, *array.shape[1:]), dtype=dtype, device=device)
        offsets = torch.zeros(2 * rows // ROWS, dtype=torch.int64, device=device)
        return replace(self.index, offsets=offsets, **arrays)

    def _counts(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens that documents count for; 0 for -1."""
        cuts = self.index.cuts
        counts: NDArray[np.int64] = np.where(positions < 0, 0, np.maximum(cuts[positions + 1] - cuts[positions], ROWS))
        return counts

    def _columns(self, wanted: NDArray[np.int64]) -> list[tuple[int, int]]:
        """First and last of runs of columns that fit into a half, a document of several queries counted for each."""
        ends = np.cumsum(self._counts(wanted).sum(0))
        runs, first = [], 0
        while first < len(ends):
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + self.most, side="right")))
            runs.append((first, last))
            first = last
        return runs

    def _bring(self, needed: NDArray[np.int64]) -> None:
        missing = needed[self._place[needed] < 0]
        if self._counted + int(self._counts(missing).sum()) > self.most:
            self._half = 1 - self._half
            for gone in self._added[self._half]:
                self._place[gone] = -1
            self._added[self._half] = []
            self._rows, self._places, self._counted = self._half * self.most, self._half * self.most // ROWS, 0
            missing = needed[self._place[needed] < 0]  # some may have been in the half that was emptied
        if len(missing):
            self._add(missing)

    def _add(self, missing: NDArray[np.int64]) -> None:
        cuts = self.index.cuts
        lengths = cuts[missing + 1] - cuts[missing]
        ends = self._rows + np.cumsum(lengths)
        last = self._places + len(missing)
        offsets = torch.from_numpy(np.stack([ends - lengths, ends], 1).ravel())
        self._held.offsets[2 * self._places : 2 * last].copy_(offsets)
        self._copy(missing, lengths)
        self._place[missing] = np.arange(self._places, last)
        self._added[self._half].append(missing)
        self._rows, self._places = int(ends[-1]), last
        self._counted += int(self._counts(missing).sum())

    def _copy(self, missing: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Copies the tokens of documents, which are ascending, behind those that are there."""
        at = self._rows
        bounds = np.searchsorted(missing, self._first)
        for number, segment in enumerate(self._segments):
            some = slice(bounds[number], bounds[number + 1])
            starts, count = segment.offsets[missing[some] - self._first[number]], lengths[some]
            rows = np.repeat(starts - np.cumsum(count) + count, count) + np.arange(count.sum())
            for ours, theirs in self._arrays.items():
                _copy_rows(getattr(segment, theirs), rows, getattr(self._held, ours)[at : at + len(rows)])
            at += len(rows)


def _copy_rows(array: NDArray[np.generic], rows: NDArray[np.int64], target: Tensor) -> None:
    """``array[rows]`` to the device, piece by piece through pinned memory."""
    row = array.itemsize * int(np.prod(array.shape[1:]))
    step = max(1, index_tensors.STAGED // row)
    shape = (min(step, len(rows)), *target.shape[1:])
    staging = torch.empty(shape, dtype=target.dtype, pin_memory=target.device.type == "cuda")
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        piece = staging[: len(part)]
        np.take(array, part, axis=0, out=piece.numpy().view(array.dtype), mode="clip")
        target[first : first + len(part)].copy_(piece)


def _row_bytes(segment: SegmentArrays, names: Iterable[str]) -> int:
    """Of a token: its arrays, and its share of a place."""
    arrays = [getattr(segment, name) for name in names]
    return sum(int(array.itemsize * np.prod(array.shape[1:])) for array in arrays) + 16 // ROWS
