"""How much of an index a search looks at; docs/design.md has how the defaults were chosen."""

from __future__ import annotations

from typing import NamedTuple

from lateint.arguments import positive

FLAT_PROBING = 1 << 16  # with more centroids, cells are searched first
CELLS_PROBED = 24  # best cells of each query token, at most; what one token reads serves all of the query
PATIENCE = 96  # candidates in a row that change nothing before a search stops of itself
LARGE_PATIENCE = 160  # the same, with more than FLAT_PROBING centroids


class Limits(NamedTuple):
    """See `lateint_kernels.engine.Engine.search`; a patience of 0 never stops early, and 0 cells are all."""

    nprobe: int
    candidates: int
    patience: int
    cells: int


def limits(k: int, nprobe: int | None, candidates: int | None, *, centroids: int, documents: int) -> Limits:
    """Those of a search for the best ``k`` that was told ``nprobe`` and ``candidates``, None where it was not.

    Raises:
        TypeError, ValueError: one of them is not a positive integer.
    """
    probes = min(64, 16 + 2 * int(max(0, k - 10) ** 0.5)) if nprobe is None else positive(nprobe, "nprobe")
    most = 512 + 4 * k if candidates is None else max(k, positive(candidates, "candidates"))
    large = centroids > FLAT_PROBING
    return Limits(
        nprobe=min(probes, centroids),
        candidates=min(most, documents),
        patience=0 if candidates is not None else LARGE_PATIENCE if large else PATIENCE,
        cells=CELLS_PROBED if large and probes < centroids else 0,
    )
