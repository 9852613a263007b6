"""How the scores of two rankings become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.arguments import positive

RELATIVE, RRF = "relative", "rrf"
ALPHA = {RELATIVE: 0.7, RRF: 0.5}  # benchmarks/text.py has how the first was chosen
RANKS = 60  # of reciprocal ranks: how little the first ranks differ


@dataclass(frozen=True)
class Fusion:
    """What becomes of MaxSim and BM25 of a document; a sparse vector's inner product stands for BM25 likewise.

    Attributes:
        kind: `RELATIVE` or `RRF`.
        alpha: how much MaxSim counts, from 0 to 1; BM25 counts the rest.
        rerank: instead, so many of the best by BM25 are ordered by MaxSim; None: not so.
    """

    kind: str = RELATIVE
    alpha: float = ALPHA[RELATIVE]
    rerank: int | None = None

    @classmethod
    def of(cls, alpha: Any, fusion: Any, rerank: Any, *, both: bool) -> Fusion:
        """That of a search.

        Args:
            alpha, fusion, rerank: as users pass them, None where they do not.
            both: whether there are tokens, and a text or a sparse vector.

        Raises:
            TypeError, ValueError: one of them cannot be, or goes with another.
        """
        for name, value in (("alpha", alpha), ("fusion", fusion), ("rerank", rerank)):
            if value is not None and not both:
                raise ValueError(f"{name} goes with both Q and text (or sparse), of which only one is given")
            if value is not None and rerank is not None and name != "rerank":
                raise ValueError(f"rerank orders by MaxSim alone, so {name} cannot be given with it")
        if fusion is not None and fusion not in ALPHA:
            raise ValueError(f"fusion must be one of {', '.join(ALPHA)}, got {fusion!r}")
        kind = fusion or RELATIVE
        if alpha is not None:
            if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.floating, np.integer)):
                raise TypeError(f"alpha must be a number from 0 to 1, got {type(alpha).__name__}")
            if not 0 <= alpha <= 1:
                raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        share = ALPHA[kind] if alpha is None else float(alpha)
        return cls(kind, share, None if rerank is None else positive(rerank, "rerank"))

    def fused(self, maxsim: NDArray[np.float32], bm25: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[n]``: ``alpha f(maxsim) + (1 - alpha) f(bm25)`` of each of n candidates.

        With `RELATIVE`, f is linear: 1 for the best candidate, and 0 for the worst by MaxSim and for a BM25 of 0. With
        `RRF`, it is ``61 / (60 + rank)`` (Cormack, Clarke and Buettcher 2009, scaled so that the first has 1), equal
        scores in the order of candidates. It is 0 for a document without tokens (MaxSim is -inf), or without any term
        of the query (BM25 is 0).

        >>> Fusion(alpha=0.5).fused(np.float32([4, 2, 3]), np.float32([0, 2, 1])).tolist()
        [0.5, 0.5, 0.5]
        >>> Fusion(RRF, 0.5).fused(np.float32([4, 2, 3]), np.float32([0, 2, 1])).round(3).tolist()
        [0.5, 0.984, 0.984]
        """
        found = np.isfinite(maxsim), bm25 > 0
        if self.kind == RRF:
            parts = [_reciprocal(scores, there) for scores, there in zip((maxsim, bm25), found, strict=True)]
        else:
            parts = [_relative(maxsim, found[0], None), _relative(bm25, found[1], 0.0)]
        fused: NDArray[np.float32] = (self.alpha * parts[0] + (1 - self.alpha) * parts[1]).astype(np.float32)
        return fused


def _relative(scores: NDArray[np.float32], there: NDArray[np.bool_], least: float | None) -> NDArray[np.float64]:
    out = np.zeros(len(scores))
    known = scores[there].astype(np.float64)
    if len(known):
        low, high = float(known.min()) if least is None else least, float(known.max())
        out[there] = (known - low) / (high - low) if high > low else 1.0
    return out


def _reciprocal(scores: NDArray[np.float32], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    out = np.zeros(len(scores))
    order = np.argsort(-scores, kind="stable")
    order = order[there[order]]
    out[order] = (RANKS + 1) / (RANKS + 1 + np.arange(len(order)))
    return out
