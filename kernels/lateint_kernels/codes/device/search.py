"""The stages of a search as plain functions of tensors: gather candidates, score them, stop, keep the best.

They do what csrc/codes/search.cpp does, in the same integers and the same order of float64 sums, for many queries.
"""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from lateint_kernels.codes.engine import Limits
from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors
from lateint_kernels.codes.torch import search as codes
from lateint_kernels.codes.torch.scoreboard import LOW, owners

ROUND = 32  # candidates between two looks at whether they still change anything
SAFETY = 3  # times the watched hits: those of a part of the query that must not change
IMPUTED_RANK = 2  # times nprobe: the centroid whose score stands in for what was not found
COARSE_RANGE = 2.0**20  # the largest coarse sum that a query can reach: kCoarseRange of csrc/codes/candidates.cpp
LINE_CANDIDATES = 1 << 12  # that the line goes through at most
LINE_LARGEST = 2.0**22  # of a score on the scale of estimates

Score = Callable[[QueryTensors, Tensor], Tensor]
BestKeys = Callable[[IndexTensors, QueryTensors, Tensor, Tensor, int, Tensor | None], tuple[Tensor, Tensor, Tensor]]


class Gathered(NamedTuple):
    """Candidates of each query, best first.

    Attributes:
        positions: ``[Nq, C]`` int64, -1 after the last.
        sums: ``[Nq, C]`` int64, coarse scores, or other estimates of scores.
        unit: ``[Nq]`` float64, how much of an estimate makes one of a score.
        postings: ``[]`` int64, entries of lists that were read.
        touched: ``[]`` int64, documents found in them.
    """

    positions: Tensor
    sums: Tensor
    unit: Tensor
    postings: Tensor
    touched: Tensor


def gather(
    index: IndexTensors,
    queries: QueryTensors,
    kernels: ModuleType,
    best_keys: BestKeys,
    limits: Limits,
    allowed: Tensor | None,
) -> Gathered:
    """The best documents by coarse score, and ties by position.

    ``sum_i m_i + sum over the tokens i that probe a centroid of d of (the best such centroid's score - m_i)``, where
    m_i is the score of the ``2 nprobe``-th best centroid.

    Args:
        kernels: the module that has ``probe``, ``probe_cells`` and ``weighted``.
        best_keys: adds up the lists; see `lateint_kernels.codes.torch.scoreboard.best_keys`.
        allowed: ``[n]`` bool, or None for all.
    """
    count = min(IMPUTED_RANK * limits.nprobe, len(index.centroids))
    above, ids = probe(index, queries, kernels, count, limits.cells)
    used = min(limits.nprobe, above.shape[1])
    widest = queries.padded(above[:, 0])[:, None]  # [Nq, 1, longest]
    ranges = kernels.weighted(widest, queries.padded(queries.scales), torch.zeros_like(queries.constants))[:, 0]
    unit = COARSE_RANGE / ranges.clamp(min=1e-30)
    gains = (queries.scales[:, None] * above[:, :used].double() * unit[owners(queries), None]).to(torch.int64)

    ids = ids[:, :used]
    if 0 < limits.lists < used:
        less = gains < _least_gain(index, queries, ids, gains, limits.lists)[owners(queries), None]
        ids = torch.where(less, len(index.centroids), ids)

    best, postings, touched = best_keys(index, queries, ids, gains, limits.candidates, allowed)
    return Gathered(*_opened(best), unit, postings, touched)


def _least_gain(index: IndexTensors, queries: QueryTensors, ids: Tensor, gains: Tensor, lists: int) -> Tensor:
    """``[Nq]``: of the gains of a query, the last of the ``lists`` largest a token; below all where there are fewer."""
    there = queries.padded(torch.where(ids < len(index.centroids), gains + 1, 0)).flatten(1)  # [Nq, longest * used]
    most = lists * (queries.offsets[1:] - queries.offsets[:-1])
    falling = there.sort(dim=1, descending=True).values
    return falling.gather(1, (most[:, None] - 1).clamp(min=0))[:, 0] - 1


def probe(
    index: IndexTensors, queries: QueryTensors, kernels: ModuleType, count: int, cells: int
) -> tuple[Tensor, Tensor]:
    """What the best ``count`` centroids of each query token have more than the last of them, ``[T, count]``, and ids.

    Cells may hold fewer centroids than that; K stands for one that is missing.
    """
    if not 0 < cells < len(index.cells):
        scores, ids = kernels.probe(queries.bytes, index.centroids, count)
        return scores - scores[:, -1:], ids
    _, wanted = kernels.probe(queries.bytes, index.cells, cells)
    scores, ids = kernels.probe_cells(index, queries.bytes, wanted, count)
    there = scores > codes.LEAST
    imputed = scores.gather(1, there.sum(1, keepdim=True) - 1)
    return torch.where(there, scores - imputed, 0), torch.where(there, ids, len(index.centroids))


def best(positions: Tensor, sums: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best ``count`` of candidates ``[Nq, C]`` by coarse sum, ties by position; -1 stands for none."""
    keys = torch.where(positions < 0, -1, (sums << 32) + LOW - positions)
    return _opened(keys.topk(min(count, keys.shape[1]), dim=1).values)


def score(index: IndexTensors, queries: QueryTensors, kernels: ModuleType, positions: Tensor) -> Tensor:
    """``S(q, d)`` of candidates ``[Nq, C]`` float32; -inf for a position of -1 and for a document without tokens.

    Args:
        kernels: the module that has ``best_products`` and ``weighted``.
    """
    best = kernels.best_products(index, queries, positions)
    scores = kernels.weighted(best, queries.padded(queries.scales), queries.constants)
    return _known(index, positions, scores.float())


def score_all(index: IndexTensors, queries: QueryTensors, kernels: ModuleType, positions: Tensor) -> Tensor:
    """`score` of the same documents ``[C]`` for every query, ``[Nq, C]``: each of their tokens is decoded once."""
    best = kernels.best_products(index, queries.joined(), positions[None])[0]  # [C, T]
    rows = [
        kernels.weighted(best[None, :, first:last], queries.scales[None, first:last], queries.constants[i : i + 1])
        for i, (first, last) in enumerate(zip(queries.cuts[:-1], queries.cuts[1:], strict=True))
    ]
    return _known(index, positions[None], torch.cat(rows).float())


def hits(
    batch: QueryTensors, few: QueryTensors, found: Gathered, score: Score, k: int, limits: Limits
) -> tuple[Tensor, Tensor]:
    """Of candidates that ``few`` found, the best k of each query: positions and scores, as `top_k` gives them.

    Args:
        few: the queries, or of long ones some tokens, see `index_tensors.sample`.
        score: scores ``[Nq, C]`` of queries and positions ``[Nq, C]``.
    """
    if few is not batch:
        found = again(batch, few, found, score(few, found.positions), k, limits)
    return top_k(found.positions, stop(found, score(batch, found.positions), k, limits), k)


def again(batch: QueryTensors, few: QueryTensors, found: Gathered, scores: Tensor, k: int, limits: Limits) -> Gathered:
    """Candidates in the order of what some tokens of long queries score, with these scores as estimates.

    As `Engine::search` in csrc/codes/ranking.cpp. Queries of which ``few`` has all tokens stay as they are.
    """
    wider = limits._replace(watched=SAFETY * limits.first(k))
    scores = stop(found, scores, wider.watched, wider)
    order = _order(scores, found.positions)
    positions, scores = found.positions.gather(1, order), scores.gather(1, order)
    scored = scores > -torch.inf
    best = torch.where(scored[:, :1], scores[:, :1], 0.0)
    distance = (torch.where(scored, scores, 0.0).double() - best.double()) * found.unit[:, None]
    estimates = _on_scale(distance) + int(LINE_LARGEST)
    lengths, whole = ((queries.offsets[1:] - queries.offsets[:-1]).double() for queries in (few, batch))
    long = (lengths < whole)[:, None]
    share = torch.where(long[:, 0], lengths / whole, 1.0)
    return found._replace(
        positions=torch.where(long, torch.where(scored, positions, -1), found.positions),
        sums=torch.where(long, estimates, found.sums),
        unit=found.unit * share,
    )


def stop(found: Gathered, scores: Tensor, k: int, limits: Limits) -> Tensor:
    """Scores with -inf for the candidates that a search with such limits would not have come to.

    Candidates come best first, in rounds of 32. A round changes something if one of its candidates is among the best k
    of those up to it (`Limits.first`); after ``patience`` in a row that changed nothing, no further one counts, nor
    does any after the first round that `below_line` sees no use in.
    """
    k = limits.first(k)
    Nq, count = scores.shape
    if not (limits.patience or limits.deviations) or not count:
        return scores
    order = _order(scores, found.positions)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(count, device=order.device).expand(Nq, -1))
    rounds = torch.arange(count, device=order.device) // ROUND
    number = int(-(-count // ROUND))
    known = rank.masked_fill(scores == -torch.inf, count)
    first = torch.nn.functional.pad(known, (0, number * ROUND - count), value=count)
    first = first.reshape(Nq, number, ROUND).amin(2)  # [Nq, rounds]: the round's best is the least
    kth = torch.stack([_kth(known[:, : ROUND * i], k, count) for i in range(number)], 1)  # before each round
    changed = first < kth
    useless = torch.zeros_like(changed)
    if limits.deviations:
        least = scores.gather(1, order).gather(1, kth.clamp(max=count - 1))
        useless = (kth < count) & below_line(found, scores, least, limits.deviations)
    idle = torch.zeros(Nq, dtype=torch.int64, device=order.device)
    on = torch.ones(Nq, dtype=torch.bool, device=order.device)
    going = []
    for i in range(number):
        on = on & ~useless[:, i]
        if limits.patience:
            on = on & (idle < limits.patience)
        going.append(on)
        idle = torch.where(changed[:, i], 0, idle + min(ROUND, count - ROUND * i))
    return scores.masked_fill(~torch.stack(going, 1)[:, rounds], -torch.inf)


def _kth(ranks: Tensor, k: int, none: int) -> Tensor:
    """The k-th least of each row; ``none`` where there are fewer."""
    if ranks.shape[1] < k:
        return ranks.new_full((len(ranks),), none)
    return ranks.topk(k, largest=False).values[:, -1]


def below_line(found: Gathered, scores: Tensor, least: Tensor, deviations: float) -> Tensor:
    """Whether the first candidate of each round ``[Nq, rounds]`` is too far below ``least`` of that shape to matter.

    As the class ``Line`` of csrc/codes/stopping.hpp: the same sums of integers, the same float64 operations.
    """
    there = torch.isfinite(scores)
    there &= there.cumsum(1) <= LINE_CANDIDATES
    coarse = found.sums
    origin = scores.gather(1, there.to(torch.int8).argmax(1, keepdim=True)).double()  # the first one
    origin = torch.where(there.any(1, keepdim=True), origin, 0.0)
    unit = found.unit[:, None]

    def scaled(values: Tensor) -> Tensor:
        distance = (values.double() - origin) * unit
        return _on_scale(distance)

    def before(values: Tensor) -> Tensor:  # sums of what comes before each round
        return torch.nn.functional.pad(values.masked_fill(~there, 0).cumsum(1), (1, 0))[:, :-1:ROUND].double()

    s = scaled(scores.masked_fill(~there, 0.0))
    n = before(torch.ones_like(coarse))
    mean_c, mean_s = before(coarse) / n, before(s) / n
    spread = before(coarse * coarse) / n - mean_c * mean_c
    together = before(coarse * s) / n - mean_c * mean_s
    slope = torch.where(spread > 0, together / spread, 0.0)
    rest = before(s * s) / n - mean_s * mean_s - slope * together
    reached = mean_s + slope * (coarse[:, ::ROUND].double() - mean_c) + deviations * rest.clamp(min=0.0).sqrt()
    return reached < scaled(least).double()


def _on_scale(distance: Tensor) -> Tensor:
    return distance.clamp(-LINE_LARGEST, LINE_LARGEST).round().to(torch.int64)


def top_k(positions: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best, best first, ties by position: positions and scores ``[Nq, k]``, fewer where there are fewer."""
    best = _order(scores, positions, min(k, scores.shape[1]))
    return positions.expand_as(scores).gather(1, best), scores.gather(1, best)


def _order(scores: Tensor, positions: Tensor, count: int | None = None) -> Tensor:
    """Indices ``[Nq, count]`` of the best by score, ties by position. Every key is different: there is one order."""
    bits = (scores + 0.0).view(torch.int32).to(torch.int64)  # no negative zero
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = rising * (1 << 32) + (LOW - positions)
    return keys.topk(scores.shape[1] if count is None else count, dim=1).indices


def _opened(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and sums of keys ``(sum << 32) + LOW - position``; -1 stays."""
    return torch.where(keys < 0, -1, LOW - (keys & LOW)), keys >> 32


def _known(index: IndexTensors, positions: Tensor, scores: Tensor) -> Tensor:
    wanted = positions.clamp(min=0)
    empty = index.offsets[wanted + 1] == index.offsets[wanted]
    return scores.masked_fill(empty | (positions < 0), -torch.inf)
