"""How much of an index a search looks at; docs/design.md has how the defaults were chosen."""

from __future__ import annotations

from math import isqrt

from lateint.arguments import integer, positive
from lateint_kernels.codes.engine import Limits

FLAT_PROBING = 1 << 15  # with more centroids, cells are searched first
CELLS_PROBED = 24  # best cells of each query token
PATIENCE = 96  # candidates in a row that change nothing before a search stops of itself
LARGE_PATIENCE = 160  # the same, with more than LARGE centroids
LARGE = 1 << 16
WIDER = 8  # times as many lists, for a query that found too few documents
MORE = 4  # times as many lists at most, for a search among a share of the documents


def limits(
    k: int,
    nprobe: int | None = None,
    candidates: int | None = None,
    cells: int | None = None,
    *,
    centroids: int,
    documents: int,
) -> Limits:
    """Those of a search for the best ``k``, with defaults for ``nprobe``, ``candidates`` and ``cells`` that are None.

    Raises:
        TypeError, ValueError: one of them is not a positive integer, or ``cells`` is negative.
    """
    if cells is not None and (cells := integer(cells, "cells")) < 0:
        raise ValueError(f"cells must be at least 0, got {cells}")
    probes = min(64, 16 + 2 * isqrt(max(0, k - 10))) if nprobe is None else positive(nprobe, "nprobe")
    most = 512 + 4 * k if candidates is None else max(k, positive(candidates, "candidates"))
    if cells is None:
        cells = CELLS_PROBED if centroids > FLAT_PROBING else 0
    return Limits(
        nprobe=min(probes, centroids),
        candidates=min(most, documents),
        patience=0 if candidates is not None else LARGE_PATIENCE if centroids > LARGE else PATIENCE,
        cells=min(cells, centroids) if probes < centroids else 0,
    )


def wider(narrow: Limits, centroids: int) -> Limits:
    """For a search that found too few documents."""
    return narrow._replace(nprobe=min(WIDER * narrow.nprobe, centroids), cells=0)


def for_share(usual: Limits, share: float, centroids: int) -> Limits:
    """For a search among a share of the documents: a list holds few of them, so more lists are read."""
    return usual._replace(nprobe=min(int(usual.nprobe / share), MORE * usual.nprobe, centroids))
