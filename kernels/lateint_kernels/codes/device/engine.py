"""`lateint_kernels.codes.engine.Engine` on a device: the same searches on the same arrays, the same results."""

import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels import backends
from lateint_kernels.codes.device import graphs, search
from lateint_kernels.codes.device.cache import DocumentCache
from lateint_kernels.codes.device.search import BestKeys, Gathered
from lateint_kernels.codes.engine import Candidates, Engine, Limits, Ranking
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors, RotationTensors, load, reload, sample, size
from lateint_kernels.codes.torch import scoreboard
from lateint_kernels.codes.torch import search as codes

TOKENS = {"cpu": 1 << 11, "cuda": 1 << 14}  # of queries, taken together
POSTINGS = {"cpu": 1 << 21, "cuda": 1 << 25}  # likewise, if their lists are as long as lists are on average
PRODUCTS = {"cpu": 1 << 20, "cuda": 1 << 28}  # kept maxima of a scan, at a time
RECORDED = 1024  # tokens of a search that is recorded: larger ones keep a GPU busy as they are


class DeviceEngine:
    """Searches an index whose arrays are tensors on one device.

    Everything that a search computes is what `Engine` computes: products are integers and exact, float64 sums run in
    the same order. One thing is done otherwise: all candidates are scored, and those that a search with patience would
    not have come to are dropped afterwards, which gives the same ranking.

    Args:
        segments: arrays, which are copied to the device, or tensors that are there already.
        device: such as ``"cuda"`` or ``"cuda:1"``, or ``"cpu"``, which is for tests.
        backend: what computes products, ``"triton"`` or ``"torch"``; None: Triton on a GPU if it is there.
        memory: bytes that the index may take on the device; documents that do not fit stay on the host, and those
            that a search scores are copied when they are needed (`DocumentCache`). None: all of it must fit.

    Raises:
        BackendError: there is no such backend, or it cannot run there.
        MemoryError: a GPU has not enough memory left, or ``memory`` is too little.
        ValueError: there are 2^31 documents or more.
    """

    def __init__(
        self,
        codec: CodecArrays,
        segments: Sequence[SegmentArrays] | IndexTensors,
        device: str,
        backend: str | None = None,
        memory: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._codec, self._segments, self._backend, self._memory = codec, segments, backend, memory
        self._kernels = backends.resolve("search", self.device, backend=backend)
        of_sums = "torch" if backend == "torch" else None  # Triton has no kernel for them
        self._best_keys: BestKeys = backends.resolve("best_keys", self.device, backend=of_sums)
        self._host = Engine(codec, [] if isinstance(segments, IndexTensors) else segments)
        # Torch's kernels wait for the device, and so does what brings documents there: no graph can record that.
        waits = memory is not None or self._kernels is codes or self._best_keys is scoreboard.best_keys
        recorded = graphs.wanted(self.device) and not waits
        self._graphs = graphs.Graphs(graphs.Recorder(self.device)) if recorded else None
        self._rotation = RotationTensors.of(codec, self.device)
        self._mean, self._step = codec.mean.astype(np.float64), float(np.float32(codec.step))
        self._cache = None
        self._mask: tuple[weakref.ref[NDArray[np.uint8]], Tensor] | None = None  # the last one that was copied
        if isinstance(segments, IndexTensors):
            self.index = segments
        elif memory is None or size(codec, segments) <= memory:
            self.index = load(codec, segments, self.device)
        else:
            self._cache = DocumentCache(codec, segments, self.device, memory)
            self.index = self._cache.index

    def with_segments(self, segments: Sequence[SegmentArrays]) -> "DeviceEngine":
        """An engine with the same codec for other segments; those that this one has are copied within the device.

        Where ``memory`` has documents stay on the host, all lists are copied to the device again.
        """
        if self._memory is not None or isinstance(self._segments, IndexTensors):
            return DeviceEngine(self._codec, segments, str(self.device), self._backend, self._memory)
        tensors = reload(self.index, self._segments, self._codec, segments, self.device)
        made = DeviceEngine(self._codec, tensors, str(self.device), self._backend)
        made._segments, made._host = segments, self._host.with_segments(segments)
        return made

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
        """As `Engine.search`, which the number of threads means nothing to."""
        mask = self.mask(allowed)
        rankings: list[Ranking] = []
        for first, last in runs(offsets, self.room(limits.lists or limits.nprobe)):
            rankings += self._ranked(queries, offsets[first : last + 1], k, limits, mask)
        return rankings

    def _ranked(
        self, queries: NDArray[np.float32], offsets: NDArray[np.int64], k: int, limits: Limits, mask: Tensor | None
    ) -> list[Ranking]:
        """Of queries that are searched together, by a recorded graph if there is one for searches of this form."""
        arrays = self.arrays(queries, offsets)
        cuts = arrays[-1]
        picks = sample(cuts, limits.sampled)
        best = partial(self._best, cuts=cuts, few=picks and picks[1], k=k, limits=limits, mask=mask)
        inputs = [self._tensor(array) for array in (*arrays, *(picks or ()))]
        if self._graphs is None or mask is not None or cuts[-1] > RECORDED:
            return rankings_of(best(*inputs).cpu())
        return rankings_of(self._graphs.run((cuts.tobytes(), k, limits), best, inputs))

    def _best(
        self,
        *given: Tensor,
        cuts: NDArray[np.int64],
        few: NDArray[np.int64] | None,
        k: int,
        limits: Limits,
        mask: Tensor | None,
    ) -> Tensor:
        """The best k of candidates, `packed`; ``few`` are the cuts of a `sample`, which are the last of ``given``."""
        batch = self.rounded(given[:3], cuts)
        part = batch if few is None else batch.at(given[3], given[4], few)
        return packed(*search.hits(batch, part, self.gathered(part, limits, mask), self.scored, k, limits))

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
        mask = self.mask(allowed)
        rankings: list[Ranking] = []
        for first, last in runs(offsets, self.room()):
            batch = self.prepared(queries, offsets[first : last + 1])
            step = max(1, PRODUCTS[codes.kind(self.index.codes)] // len(batch.scales))
            best = self._empty(len(batch.constants))
            for start in range(0, self.index.documents, step):
                positions = torch.arange(start, min(start + step, self.index.documents), device=self.device)
                if mask is not None:
                    positions = positions[mask[positions]]
                scores = self._scored_all(batch, positions)
                found = positions.expand(len(scores), -1)
                best = search.top_k(torch.cat([best[0], found], 1), torch.cat([best[1], scores], 1), k)
            rankings += rankings_of(packed(*best).cpu())
        return rankings

    def gather(self, query: NDArray[np.float32], limits: Limits) -> Candidates:
        """As `Engine.gather`."""
        batch = self.prepared(query, np.array([0, len(query)]))
        found = self.gathered(batch, limits, None)
        return candidates_of(found.positions, found.sums, int(found.postings), int(found.touched))

    def score(
        self, query: NDArray[np.float32], positions: NDArray[np.int64], *, threads: int = 0
    ) -> NDArray[np.float32]:
        """As `Engine.score`."""
        prepared = self.prepared(query, np.array([0, len(query)]))
        step = max(1, PRODUCTS[codes.kind(self.index.codes)] // len(query))
        parts = torch.from_numpy(np.array(positions, np.int64)).to(self.device).split(step)
        scores = [self.scored(prepared, part[None])[0] for part in parts]
        found: NDArray[np.float32] = torch.cat(scores).cpu().numpy()
        return found

    def prepare(self, query: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float64], float]:
        """As `Engine.prepare`."""
        return self._host.prepare(query)

    def decode(self, segment: int, first: int, n: int) -> NDArray[np.uint8]:
        """As `Engine.decode`, on the host: one document is soon decoded there."""
        return self._host.decode(segment, first, n)

    def gathered(self, batch: QueryTensors, limits: Limits, allowed: Tensor | None) -> Gathered:
        """Candidates of queries, on the device."""
        return search.gather(self.index, batch, self._kernels, self._best_keys, limits, allowed)

    def scored(self, batch: QueryTensors, positions: Tensor) -> Tensor:
        """Scores ``[Nq, C]`` of candidates ``[Nq, C]``."""
        if self._cache is None:
            return search.score(self.index, batch, self._kernels, positions)
        parts = [search.score(index, batch, self._kernels, held) for index, held in self._cache.hold(positions)]
        return torch.cat(parts, 1) if parts else positions.new_empty(positions.shape, dtype=torch.float32)

    def _scored_all(self, batch: QueryTensors, positions: Tensor) -> Tensor:
        """Scores ``[Nq, C]`` of the same documents ``[C]`` for all queries."""
        if self._cache is None:
            return search.score_all(self.index, batch, self._kernels, positions)
        held = self._cache.hold(positions[None])
        parts = [search.score_all(index, batch, self._kernels, places[0]) for index, places in held]
        return torch.cat(parts, 1) if parts else self._empty(len(batch.constants))[1]

    def room(self, lists: int = 0) -> int:
        """Query tokens that are taken together, so many that what they need fits; each reads so many lists."""
        kind = codes.kind(self.index.codes)
        postings = 1 + lists * len(self.index.list_documents) // len(self.index.centroids)  # of a token
        most = min(TOKENS[kind], POSTINGS[kind] // postings)
        return most if self._cache is None else min(most, self._cache.most // self._cache.longest)

    def prepared(self, queries: NDArray[np.float32], offsets: NDArray[np.int64]) -> QueryTensors:
        """Queries ``queries[offsets[i]:offsets[i + 1]]`` on the device, rounded to bytes."""
        arrays = self.arrays(queries, offsets)
        return self.rounded([self._tensor(array) for array in arrays], arrays[-1])

    def arrays(
        self, queries: NDArray[np.float32], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
        """What the host knows of them: tokens, constant parts of scores, offsets from 0."""
        tokens, cuts = queries[offsets[0] : offsets[-1]], offsets - offsets[0]
        return tokens, self._constants(tokens, cuts), cuts

    def sampled(self, batch: QueryTensors, count: int) -> QueryTensors:
        """The queries with a `sample` of the tokens of long ones."""
        found = sample(batch.cuts, count)
        if found is None:
            return batch
        picks, cuts = found
        return batch.at(self._tensor(picks), self._tensor(cuts), cuts)

    def rounded(self, given: Sequence[Tensor], cuts: NDArray[np.int64]) -> QueryTensors:
        """`arrays` on the device, tokens rounded to bytes as csrc/codes does it; ``cuts`` are the last of them."""
        tokens, constants, offsets = given
        rotated = self._kernels.rotate(tokens, self._rotation)  # [T, width]
        largest = rotated.abs().amax(1)
        # A tensor, for a GPU divides by a number by multiplying with its inverse.
        scales = torch.where(largest > 1e-30, largest / torch.full_like(largest, 127), 1)
        integers = (rotated / scales[:, None]).round().to(torch.int8)
        depth = self.index.centroids.shape[1]
        bytes = torch.nn.functional.pad(integers, (0, depth - integers.shape[1]))
        return QueryTensors(bytes, scales.double() * self._step, constants, offsets, cuts)

    def mask(self, allowed: NDArray[np.uint8] | None) -> Tensor | None:
        """Documents that may be found, ``[n]`` bool on the device. An array that is read-only is copied once."""
        if allowed is None or allowed.flags.writeable:
            return None if allowed is None else self._tensor(allowed != 0)
        if (known := self._mask) is None or known[0]() is not allowed:
            self._mask = known = weakref.ref(allowed), self._tensor(allowed != 0)
        return known[1]

    def _constants(self, tokens: NDArray[np.float32], cuts: NDArray[np.int64]) -> NDArray[np.float64]:
        """``sum_i <q_i, mean>`` of each query: on the host, for the sum runs over components in order."""
        terms = tokens.astype(np.float64) * self._mean
        sums = [np.add.accumulate(terms[first:last].ravel())[-1] for first, last in pairwise(cuts)]
        return np.array(sums, np.float64)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """A copy on the device; from memory that is not pinned it would wait for all that the device has to do."""
        copy = torch.from_numpy(np.array(array))
        return (copy.pin_memory() if self.device.type == "cuda" else copy).to(self.device, non_blocking=True)

    def _empty(self, Nq: int) -> tuple[Tensor, Tensor]:
        """No positions and no scores."""
        return (
            torch.empty((Nq, 0), dtype=torch.int64, device=self.device),
            torch.empty((Nq, 0), dtype=torch.float32, device=self.device),
        )


def runs(offsets: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """First and last of runs of queries with at most so many tokens together; a longer query is on its own."""
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1)
        yield first, last
        first = last


def candidates_of(positions: Tensor, sums: Tensor, postings: int, touched: int) -> Candidates:
    """Of one query ``[1, C]``, without what stands for none."""
    there = (positions[0] >= 0).cpu().numpy()
    return Candidates(positions[0].cpu().numpy()[there], sums[0].float().cpu().numpy()[there], postings, touched)


def packed(positions: Tensor, scores: Tensor) -> Tensor:
    """Both as one tensor of int64 ``[2, Nq, k]``, which goes to the host at once."""
    return torch.stack([positions, scores.view(torch.int32).to(torch.int64)])


def rankings_of(both: Tensor) -> list[Ranking]:
    """What `packed` gave, on the host, without what is no hit."""
    positions, bits = both.numpy()
    scores = bits.astype(np.int32).view(np.float32)
    return [(p[np.isfinite(s)], s[np.isfinite(s)]) for p, s in zip(positions, scores, strict=True)]
