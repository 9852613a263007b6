"""How much of an index a search looks at; docs/design.md has how the defaults were chosen."""

from __future__ import annotations

from math import ceil, isqrt

from lateint.arguments import integer, positive
from lateint_kernels.codes.centroids import has_small_cells
from lateint_kernels.codes.engine import Limits

FINE = 128  # tokens a centroid, up to which coarse scores are good enough for what follows
MANY = 1 << 12  # centroids, from which they are so in any case, and cells are searched first
PROBES = 16, 96  # centroids of each query token: sqrt(K) / 2 within these bounds,
COVERED = 1800  # the upper one of which is one of so many centroids, where these are more; sqrt(K) / 4 with small cells
SPREAD = (2, 4), (1, 3)  # beyond 96: times as many probes, of which one in so many has its list read; with small cells
CELLS_PROBED = 24  # best cells of each query token
PATIENCE = 96  # candidates in a row that change nothing before a search stops of itself
DEVIATIONS = 3.0  # so far below what coarse scores foretell, a candidate ends a search
# Times the candidates, times the patience, and more deviations where lists are chosen: coarse scores say less then, and
# take most of the time.
LONGER = 2, 4, 1.0
SAMPLED = 96  # tokens of a much longer query that find candidates
WIDER = 8  # times as many lists, for a query that found too few documents
MORE = 2  # times as many lists at most, for a search among a share of the documents
MOST_DOCUMENTS = 1 << 32  # of an index
# Of growing cost, around the defaults: times their probes (and lists; cells and sampled tokens, where these are more),
# patience and deviations where the defaults are PATIENCE and DEVIATIONS, and times their candidates.
RUNGS = (
    (0.25, 48, 1.0, 1),
    (0.5, 48, 1.0, 1),
    (0.5, 48, 1.5, 1),
    (0.625, 64, 1.75, 1),
    (0.625, 64, 2.0, 1),
    (0.75, 96, 2.25, 1),
    (0.75, 96, 2.5, 1),
    (0.875, 96, 2.75, 1),
    (1.0, 96, 3.0, 1),
    (1.0, 144, 3.5, 1),
    (1.25, 192, 4.0, 2),
    (1.5, 256, 4.5, 2),
    (2.0, 384, 5.0, 2),
    (4.0, 768, 6.0, 4),
    (8.0, 1536, 8.0, 8),
)


def limits(
    k: int,
    nprobe: int | None = None,
    candidates: int | None = None,
    cells: int | None = None,
    *,
    centroids: int,
    ncells: int,
    documents: int,
    tokens: int,
) -> Limits:
    """Those of a search for the best ``k``, with defaults for ``nprobe``, ``candidates`` and ``cells`` that are None.

    Raises:
        TypeError, ValueError: one of them is not a positive integer, or ``cells`` is negative.
    """
    if cells is not None and (cells := integer(cells, "cells")) < 0:
        raise ValueError(f"cells must be at least 0, got {cells}")
    fine = centroids > MANY or tokens <= FINE * centroids
    lists = 0
    small_cells = has_small_cells(centroids, ncells)
    if nprobe is None:
        few, most_probes = PROBES
        probes = (max(few, isqrt(centroids) // 2) if fine else few) + 2 * isqrt(max(0, k - 10))
        probes = min(probes, max(most_probes, isqrt(centroids) // 4 if small_cells else centroids // COVERED))
        if probes > most_probes:
            more, part = SPREAD[small_cells]
            probes *= more
            lists = ceil(probes / part)
    else:
        probes = positive(nprobe, "nprobe")
    times, patient, farther = LONGER if lists else (1, 1, 0.0)
    most = times * (512 + 4 * k) if candidates is None else max(k, positive(candidates, "candidates"))
    if cells is None:
        cells = CELLS_PROBED if centroids > MANY else 0
    return Limits(
        nprobe=min(probes, centroids),
        candidates=min(most, documents),
        patience=patient * PATIENCE if candidates is None else 0,
        cells=min(cells, centroids) if probes < centroids else 0,
        deviations=DEVIATIONS + farther if candidates is None and fine else 0.0,
        sampled=SAMPLED if candidates is None and fine else 0,
        lists=lists,
    )


def wider(narrow: Limits, centroids: int) -> Limits:
    """For a search that found too few documents."""
    return narrow._replace(nprobe=min(WIDER * narrow.nprobe, centroids), cells=0, sampled=0, lists=0)


def for_share(usual: Limits, share: float, centroids: int) -> Limits:
    """For a search among a share of the documents: a list holds few of them, so more lists are read."""
    nprobe = min(int(usual.nprobe / share), MORE * usual.nprobe, centroids)
    lists = ceil(usual.lists * nprobe / usual.nprobe) if nprobe < centroids else 0
    return usual._replace(nprobe=nprobe, lists=lists)


def rungs(k: int, *, centroids: int, ncells: int, tokens: int) -> list[Limits]:
    """Settings of growing cost for the best ``k``, around the defaults; nothing in them becomes less."""
    usual = limits(k, centroids=centroids, ncells=ncells, documents=MOST_DOCUMENTS, tokens=tokens)
    found = []
    for probes, patience, deviations, more in RUNGS:
        nprobe = min(max(1, round(probes * usual.nprobe)), centroids)
        cells = max(usual.cells, ceil(probes * usual.cells))
        sampled = max(usual.sampled, ceil(probes * usual.sampled))
        line = deviations + usual.deviations - DEVIATIONS if usual.deviations else 0.0
        lists = ceil(probes * usual.lists)
        patience = patience * usual.patience // PATIENCE
        found.append(Limits(nprobe, more * usual.candidates, patience, cells, line, sampled=sampled, lists=lists))
    return found


def fitting(rung: Limits, centroids: int, documents: int) -> Limits:
    """For an index that has perhaps fewer centroids or documents."""
    nprobe = min(rung.nprobe, centroids)
    return rung._replace(
        nprobe=nprobe,
        candidates=min(rung.candidates, max(1, documents)),
        cells=min(rung.cells, centroids) if nprobe < centroids else 0,
        lists=rung.lists if nprobe < centroids else 0,
    )
