"""`lateint_kernels.engine.Engine` on a device: the same searches on the same arrays, the same results."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels._torch import codes, search
from lateint_kernels._torch.index_tensors import IndexTensors, QueryTensors, RotationTensors, load
from lateint_kernels._torch.stages import stages
from lateint_kernels.engine import Candidates, CodecArrays, Engine, Ranking, SegmentArrays

TOKENS = {"cpu": 1 << 11, "cuda": 1 << 14}  # of queries, taken together
POSTINGS = {"cpu": 1 << 21, "cuda": 1 << 25}  # likewise, if their lists are as long as lists are on average
PRODUCTS = {"cpu": 1 << 20, "cuda": 1 << 28}  # kept maxima of a scan, at a time


class DeviceEngine:
    """Searches an index whose arrays are tensors on one device.

    Everything that a search computes is what `Engine` computes: products are integers and exact, float64 sums run in
    the same order. Two things are done otherwise. All candidates are scored, and those that a search with patience
    would not have come to are dropped afterwards, which gives the same ranking. And all centroids are scored, whatever
    ``cells`` says: the ranking is the one that `Engine` finds with ``cells=0``.

    Args:
        segments: arrays, which are copied to the device, or tensors that are there already.
        device: such as ``"cuda"`` or ``"cuda:1"``, or ``"cpu"``, which is for tests.
        backend: what computes products, ``"triton"`` or ``"torch"``; None: Triton on a GPU if it is there.

    Raises:
        BackendError: there is no such backend, or it cannot run there.
        MemoryError: a GPU has not enough memory left.
        ValueError: there are 2^31 documents or more.
    """

    def __init__(
        self,
        codec: CodecArrays,
        segments: Sequence[SegmentArrays] | IndexTensors,
        device: str,
        backend: str | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._stages = stages("search", self.device, backend)
        self._preparing = Engine(codec, [])
        self._rotation = RotationTensors.of(codec, self.device)
        self._mean, self._step = codec.mean.astype(np.float64), float(np.float32(codec.step))
        if isinstance(segments, IndexTensors):
            self.index, self._lengths = segments, [len(segments.codes)]
        else:
            self.index = load(codec, segments, self.device)
            self._lengths = [int(segment.offsets[-1]) for segment in segments]

    def search(
        self,
        queries: NDArray[np.float32],
        offsets: NDArray[np.int64],
        k: int,
        *,
        nprobe: int,
        candidates: int,
        patience: int = 0,
        cells: int = 0,
        allowed: NDArray[np.uint8] | None = None,
        threads: int = 0,
    ) -> list[Ranking]:
        """As `Engine.search`; ``cells`` and ``threads`` do nothing."""
        mask = self._mask(allowed)
        rankings: list[Ranking] = []
        for batch in self._batches(queries, offsets, nprobe):
            found = search.gather(self.index, batch, self._stages, nprobe=nprobe, candidates=candidates, allowed=mask)
            scores = search.score(self.index, batch, self._stages, found.positions)
            scores = search.stop(found.positions, scores, k, patience)
            rankings += _rankings(*search.top_k(found.positions, scores, k))
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
        """As `Engine.exhaustive`."""
        mask = self._mask(allowed)
        rankings: list[Ranking] = []
        for batch in self._batches(queries, offsets):
            step = max(1, PRODUCTS[codes.kind(self.index.codes)] // len(batch.scales))
            best = self._empty(len(batch.constants))
            for first in range(0, self.index.documents, step):
                last = min(first + step, self.index.documents)
                positions = torch.arange(first, last, device=self.device)
                if mask is not None:
                    positions = positions[mask[first:last]]
                scores = search.score_all(self.index, batch, self._stages, positions)
                found = positions.expand(len(scores), -1)
                best = search.top_k(torch.cat([best[0], found], 1), torch.cat([best[1], scores], 1), k)
            rankings += _rankings(*best)
        return rankings

    def gather(self, query: NDArray[np.float32], *, nprobe: int, candidates: int, cells: int = 0) -> Candidates:
        """As `Engine.gather`; ``cells`` does nothing."""
        prepared = self._prepared(query, np.array([0, len(query)]))
        found = search.gather(self.index, prepared, self._stages, nprobe=nprobe, candidates=candidates, allowed=None)
        scores = found.sums[0].float()
        return Candidates(found.positions[0].cpu().numpy(), scores.cpu().numpy(), found.postings, found.touched)

    def score(
        self, query: NDArray[np.float32], positions: NDArray[np.int64], *, threads: int = 0
    ) -> NDArray[np.float32]:
        """As `Engine.score`."""
        prepared = self._prepared(query, np.array([0, len(query)]))
        step = max(1, PRODUCTS[codes.kind(self.index.codes)] // len(query))
        parts = torch.from_numpy(np.array(positions, np.int64)).to(self.device).split(step)
        scores = [search.score(self.index, prepared, self._stages, part[None])[0] for part in parts]
        found: NDArray[np.float32] = torch.cat(scores).cpu().numpy()
        return found

    def prepare(self, query: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float64], float]:
        """As `Engine.prepare`."""
        return self._preparing.prepare(query)

    def decode(self, segment: int, first: int, n: int) -> NDArray[np.uint8]:
        """As `Engine.decode`."""
        start = sum(self._lengths[:segment]) + first
        rows = codes.decode(self.index, torch.arange(start, start + n, device=self.device))
        found: NDArray[np.uint8] = (rows.view(torch.uint8) ^ 128).cpu().numpy()
        return found

    def _batches(
        self, queries: NDArray[np.float32], offsets: NDArray[np.int64], nprobe: int = 0
    ) -> Iterator[QueryTensors]:
        """Queries on the device, so many at a time that what they need fits."""
        kind, first = codes.kind(self.index.codes), 0
        postings = 1 + nprobe * len(self.index.list_documents) // len(self.index.centroids)  # of a token
        most = min(TOKENS[kind], POSTINGS[kind] // postings)
        while first < len(offsets) - 1:
            last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1)
            yield self._prepared(queries[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first])
            first = last

    def _prepared(self, tokens: NDArray[np.float32], cuts: NDArray[np.int64]) -> QueryTensors:
        """Rounded to bytes, as csrc/search.cpp does it."""
        rotated = self._stages.rotate(self._tensor(tokens), self._rotation)  # [T, width]
        largest = rotated.abs().amax(1)
        scales = torch.where(largest > 1e-30, largest / largest.new_tensor(127), 1)
        integers = (rotated / scales[:, None]).round().to(torch.int8)
        depth = self.index.centroids.shape[1]
        return QueryTensors(
            torch.nn.functional.pad(integers, (0, depth - integers.shape[1])),
            scales.double() * self._step,
            self._tensor(self._constants(tokens, cuts)),
            self._tensor(cuts),
            cuts,
        )

    def _constants(self, tokens: NDArray[np.float32], cuts: NDArray[np.int64]) -> NDArray[np.float64]:
        """``sum_i <q_i, mean>`` of each query: on the host, for the sum runs over components in order."""
        terms = tokens.astype(np.float64) * self._mean
        sums = [np.add.accumulate(terms[first:last].ravel())[-1] for first, last in pairwise(cuts)]
        return np.array(sums, np.float64)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.device, non_blocking=True)

    def _mask(self, allowed: NDArray[np.uint8] | None) -> Tensor | None:
        return None if allowed is None else torch.from_numpy(allowed != 0).to(self.device)

    def _empty(self, Nq: int) -> tuple[Tensor, Tensor]:
        """No positions and no scores."""
        return (
            torch.empty((Nq, 0), dtype=torch.int64, device=self.device),
            torch.empty((Nq, 0), dtype=torch.float32, device=self.device),
        )


def _rankings(positions: Tensor, scores: Tensor) -> list[Ranking]:
    """Copies both to the host at once and drops what is no hit."""
    both = torch.stack([positions, scores.view(torch.int32).to(torch.int64)]).cpu().numpy()
    found = both[1].astype(np.int32).view(np.float32)
    return [(p[np.isfinite(s)], s[np.isfinite(s)]) for p, s in zip(both[0], found, strict=True)]
