"""One index on several devices: each has a run of its documents."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels.codes.device import search
from lateint_kernels.codes.device.engine import DeviceEngine, candidates_of, packed, rankings_of, runs
from lateint_kernels.codes.device.search import Gathered
from lateint_kernels.codes.engine import Candidates, Engine, Limits, Ranking, best
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.codes.index_tensors import QueryTensors


class ShardedEngine:
    """`DeviceEngine` on several devices, with the same results: its methods are described there.

    Each device finds candidates among its own documents; the best of all are scored where they are. What devices tell
    each other is positions, coarse sums and scores of candidates, through the first of them.

    Args:
        devices: such as ``["cuda:0", "cuda:1"]``; the same one twice is two shards on it.
        memory: bytes of each device, see `DeviceEngine`.
    """

    def __init__(
        self,
        codec: CodecArrays,
        segments: Sequence[SegmentArrays],
        devices: Sequence[str],
        backend: str | None = None,
        memory: int | None = None,
    ) -> None:
        shares = split(segments, len(devices))
        self.shards = [
            DeviceEngine(codec, share, device, backend, memory) for share, device in zip(shares, devices, strict=True)
        ]
        self._first = np.concatenate([[0], np.cumsum([shard.index.documents for shard in self.shards])])
        self._host = Engine(codec, segments)
        self._made = codec, devices, backend, memory

    def with_segments(self, segments: Sequence[SegmentArrays]) -> "ShardedEngine":
        """An engine with the same codec for other segments, all of which are shared out and copied anew."""
        codec, devices, backend, memory = self._made
        return ShardedEngine(codec, segments, devices, backend, memory)

    def search(
        self,
        queries: NDArray[np.float32],
        offsets: NDArray[np.int64],
        k: int,
        limits: Limits,
        *,
        allowed: NDArray[np.uint8] | None = None,
        threads: int = 0,
    ) -> list[Ranking]:
        """As `DeviceEngine.search`."""
        rankings: list[Ranking] = []
        masks = [shard.mask(part) for shard, part in zip(self.shards, self._cut(allowed), strict=True)]
        room = min(shard.room(limits.lists or limits.nprobe) for shard in self.shards)
        for first, last in runs(offsets, room):
            batches = [shard.prepared(queries, offsets[first : last + 1]) for shard in self.shards]
            few = [shard.sampled(batch, limits.sampled) for shard, batch in zip(self.shards, batches, strict=True)]
            found = [
                shard.gathered(part, limits, mask) for shard, part, mask in zip(self.shards, few, masks, strict=True)
            ]
            positions, sums = self._merged(found, limits.candidates)
            merged = found[0]._replace(positions=positions, sums=sums)
            if few[0] is not batches[0]:
                merged = search.again(batches[0], few[0], merged, self._scores(few, positions), k, limits)
            scores = search.stop(merged, self._scores(batches, merged.positions), k, limits)
            rankings += rankings_of(packed(*search.top_k(merged.positions, scores, k)).cpu())
        return rankings

    def exhaustive(
        self,
        queries: NDArray[np.float32],
        offsets: NDArray[np.int64],
        k: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        threads: int = 0,
    ) -> list[Ranking]:
        """As `DeviceEngine.exhaustive`: of the best of each shard, the best."""
        found = [
            shard.exhaustive(queries, offsets, k, allowed=part)
            for shard, part in zip(self.shards, self._cut(allowed), strict=True)
        ]
        rankings = []
        for of_query in zip(*found, strict=True):
            positions = np.concatenate([p + first for (p, _), first in zip(of_query, self._first, strict=False)])
            scores = [s for _, s in of_query]
            order = best(scores, k)  # ties by position, which shards have in order
            rankings.append((positions[order], np.concatenate(scores)[order]))
        return rankings

    def gather(self, query: NDArray[np.float32], limits: Limits) -> Candidates:
        """As `DeviceEngine.gather`."""
        whole = np.array([0, len(query)])
        found = [shard.gathered(shard.prepared(query, whole), limits, None) for shard in self.shards]
        positions, sums = self._merged(found, limits.candidates)
        postings, touched = (sum(int(getattr(part, name)) for part in found) for name in ("postings", "touched"))
        return candidates_of(positions, sums, postings, touched)

    def score(
        self, query: NDArray[np.float32], positions: NDArray[np.int64], *, threads: int = 0
    ) -> NDArray[np.float32]:
        """As `DeviceEngine.score`."""
        scores = np.empty(len(positions), np.float32)
        owner = np.searchsorted(self._first, positions, side="right") - 1
        for number, shard in enumerate(self.shards):
            mine = owner == number
            scores[mine] = shard.score(query, positions[mine] - self._first[number])
        return scores

    def prepare(self, query: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float64], float]:
        """As `Engine.prepare`."""
        return self._host.prepare(query)

    def decode(self, segment: int, first: int, n: int) -> NDArray[np.uint8]:
        """As `Engine.decode`."""
        return self._host.decode(segment, first, n)

    def _cut(self, allowed: NDArray[np.uint8] | None) -> list[NDArray[np.uint8] | None]:
        return [None if allowed is None else allowed[first:last] for first, last in pairwise(self._first)]

    def _merged(self, found: Sequence[Gathered], count: int) -> tuple[Tensor, Tensor]:
        """Positions and sums of the best candidates of all shards, ``[Nq, C]`` on the first device."""
        device = found[0].positions.device
        positions = [
            torch.where(part.positions < 0, -1, part.positions + int(first)).to(device)
            for part, first in zip(found, self._first, strict=False)
        ]
        return search.best(torch.cat(positions, 1), torch.cat([part.sums.to(device) for part in found], 1), count)

    def _scores(self, batches: Sequence[QueryTensors], positions: Tensor) -> Tensor:
        """``[Nq, C]``: each candidate is scored where it is."""
        scores = []
        for shard, batch, (first, last) in zip(self.shards, batches, pairwise(self._first), strict=True):
            mine = (positions >= int(first)) & (positions < int(last))
            local = torch.where(mine, positions - int(first), -1).to(shard.device)
            scores.append(shard.scored(batch, local).to(positions.device))
        return torch.stack(scores).amax(0)  # -inf from all others


def split(segments: Sequence[SegmentArrays], count: int) -> list[list[SegmentArrays]]:
    """The documents of an index in ``count`` runs of about equally many tokens: views of its arrays, but for lists.

    A run may be empty; it has a segment of no documents then.
    """
    tokens = np.concatenate([np.diff(segment.offsets) for segment in segments])
    cuts = np.searchsorted(np.cumsum(tokens), np.arange(1, count) * (tokens.sum() / count))
    bounds = [0, *np.minimum(cuts, len(tokens)).tolist(), len(tokens)]
    firsts = np.concatenate([[0], np.cumsum([len(segment.offsets) - 1 for segment in segments])]).tolist()
    shares = []
    for first, last in pairwise(bounds):
        share = [
            restricted(segment, max(first, low) - low, min(last, high) - low)
            for segment, (low, high) in zip(segments, pairwise(firsts), strict=True)
            if max(first, low) < min(last, high)
        ]
        shares.append(share or [restricted(segments[0], 0, 0)])
    return shares


def restricted(segment: SegmentArrays, first: int, last: int) -> SegmentArrays:
    """Documents ``first:last`` of a segment."""
    if first == 0 and last == len(segment.offsets) - 1:
        return segment
    begin, end = (int(segment.offsets[i]) for i in (first, last))

    def tokens(array: NDArray[Any] | None) -> Any:
        return None if array is None else array[begin:end]

    documents = segment.list_documents
    kept = np.flatnonzero((documents >= first) & (documents < last))
    return SegmentArrays(
        segment.offsets[first : last + 1] - begin,
        segment.codes[begin:end],
        tokens(segment.scales),
        segment.centroid_ids[begin:end],
        tokens(segment.centroid_high),
        np.searchsorted(kept, segment.list_offsets).astype(np.int64),
        documents[kept] - np.uint32(first),
        segment.list_centroids,
    )
