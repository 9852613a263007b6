"""How a search goes about a subset: scan all of it, or look into more lists than usual.

Which of the two is decided by what they cost, in tokens that are scored, and so is the same everywhere. docs/filters.md
has the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from lateint.retrieval.limits import for_share
from lateint.retrieval.selection import Selection
from lateint_kernels.codes.engine import Limits

PRUNED, SCAN, EXHAUSTIVE, WORDS = "pruned", "scan", "exhaustive", "words"
CENTROID = 0.25  # what a centroid that is looked at costs a pruned search
CANDIDATES = 192  # documents that a pruned search scores, about, for each 512 candidates that it may


@dataclass(frozen=True)
class Plan:
    """What a search did.

    Attributes:
        kind: ``"pruned"``: candidates were found by lists of centroids; ``"scan"``: the documents that a filter or
            subset leaves were few, and all of them were scored; ``"exhaustive"``: that is what was asked for;
            ``"words"``: candidates were found by BM25, or by sparse vectors, alone.
        documents: how many could be found.
        nprobe: centroids that each query token probed; None where lists played no part. ``limits.lists`` says of how
            many the lists were read, where not of all.
        limits: all settings of a pruned search; None where lists played no part.
        recall: that was asked for, and for which these settings were calibrated; None: none was.
    """

    kind: str
    documents: int
    nprobe: int | None = None
    limits: Limits | None = None
    recall: float | None = None


def scans(selection: Selection, limits: Limits, centroids: int, ncells: int) -> bool:
    """Whether it costs less to score a whole subset than to find candidates among it."""
    if selection.chosen is None:
        return False
    if selection.documents <= limits.candidates // 4:
        return True
    whole = selection.whole or selection  # deleted documents decide nothing, so that a fresh build does the same
    mean = whole.tokens / max(1, whole.documents)
    looked_at = ncells + limits.cells * centroids // ncells if limits.cells else centroids  # cells, and what is in them
    pruned = CENTROID * looked_at + CANDIDATES * limits.candidates / 512 * mean
    return selection.tokens <= pruned


def widened(selection: Selection, limits: Limits, centroids: int) -> Limits:
    """Limits of a pruned search among a subset."""
    return limits if selection.chosen is None else for_share(limits, selection.share, centroids)
