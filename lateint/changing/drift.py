"""How well a codec still fits what is in an index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lateint.indexing.codec import Codec
from lateint.state import Part, State
from lateint_kernels.codes import residual

SAMPLED = 4096  # tokens of a segment whose residuals are not known
RATIO, GROWTH = 1.08, 4.0  # from here on a rebuild may pay; docs/living.md has what it gained


@dataclass(frozen=True)
class Drift:
    """How the documents of an index differ from those that its codec was learned from.

    Attributes:
        residual_ratio: how far tokens are from their centroids, on average, over how far those of the training sample
            were; None: that is not known.
        growth: tokens now over tokens that the codec was learned for; None: that is not known.
        advice: what to do, in a sentence.
    """

    residual_ratio: float | None
    growth: float | None
    advice: str


def measure(state: State, codec: Codec) -> Drift:
    """Measures it; reads at most a few thousand tokens of each segment."""
    tokens = sum(part.tokens for part in state.parts)
    if codec.training is None:
        return Drift(None, None, "The codec does not say what it was learned from; a rebuild would.")
    norm = residual_norm(state, codec)
    ratio = 1.0 if norm is None else norm / codec.training.residual_norm
    growth = tokens / codec.training.tokens
    if ratio >= RATIO:
        advice = f"Tokens are {ratio:.2f} times as far from their centroids as at first: consider rebuild(source)."
    elif growth >= GROWTH:
        advice = f"There are {growth:.1f} times as many tokens as at first: consider rebuild(source)."
    else:
        advice = "The codec fits; nothing is to be done."
    return Drift(ratio, growth, advice)


def residual_norm(state: State, codec: Codec) -> float | None:
    """How far tokens are from their centroids, on average; None: there are none."""
    norms = [(part.tokens, _norm(part, codec)) for part in state.parts if part.tokens]
    return sum(n * norm for n, norm in norms) / sum(n for n, _ in norms) if norms else None


def _norm(part: Part, codec: Codec) -> float:
    """Measured when the documents were added, or else off some codes, which at 1 and 2 bits come out a little small."""
    if part.entry.residual_norm is not None:
        return part.entry.residual_norm
    arrays, total = part.arrays, part.entry.tokens
    some = np.unique(np.linspace(0, total - 1, min(SAMPLED, total)).astype(np.int64))
    ids = np.minimum(part.centroid_ids(some), np.uint32(len(codec.centroids) - 1))
    scales = np.empty(0, np.uint8) if arrays.scales is None else arrays.scales[some]
    width = codec.rotation.width
    rows = residual.decode(arrays.codes[some], scales, ids, codec.centroids.rows, codec.nbits, width)
    apart = rows.astype(np.int32) - codec.centroids.rows[ids][:, :width]
    return codec.rotation.step * float(np.sqrt((apart * apart).sum(1)).mean())
