"""Pictures of why a document was found: the words of a text, or the patches of an image, by what they add to a score.

``similarity`` is what `Index.similarity` gives. A page of `lateint_server` shows the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.encoders.protocol import Places

STOPS = np.array([[59, 15, 112], [205, 55, 80], [252, 190, 70]], np.float64)  # from dark to bright
INK = "205, 55, 80"
STRONGEST = 0.75  # opacity of what adds most


@dataclass(frozen=True)
class Html:
    """A piece of HTML that notebooks show."""

    html: str

    def __str__(self) -> str:
        return self.html

    def _repr_html_(self) -> str:
        return self.html


def contributions(similarity: Any) -> NDArray[np.float32]:
    """What each token of a document adds to the score: the sum of its matches, ``[Ld]`` of ``[Lq, Ld]``.

    ``c_j = sum_{i: argmax_j' s_ij' = j} s_ij``, so that they add up to MaxSim. The first among equals counts.

    >>> contributions([[0.5, 0.25], [0.0, 1.0], [0.75, 0.25]])
    array([1.25, 1.  ], dtype=float32)
    """
    matrix = np.asarray(similarity, np.float32)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise ValueError(f"similarity must be [Lq, Ld] with at least one document token, got {matrix.shape}")
    best = matrix.argmax(1)
    added = np.zeros(matrix.shape[1], np.float32)
    np.add.at(added, best, matrix[np.arange(len(best)), best])
    return added


def text(text: str, spans: Sequence[Sequence[int]], similarity: Any) -> Html:
    """The text with its tokens coloured, for a notebook.

    Args:
        text: of the document.
        spans: ``[Ld, 2]``: where each token begins and ends in ``text``, in characters; a token without a place, such
            as one that marks the beginning, begins and ends at the same.
        similarity: ``[Lq, Ld]``, drawn by `contributions`; or ``[Ld]``, such as the row of one query token.

    Raises:
        ValueError: there is not one span a token, or one lies outside of the text.
    """
    weights = _weights(similarity)
    places = np.asarray(spans, np.int64).reshape(-1, 2)
    if len(places) != len(weights):
        raise ValueError(f"spans must be one a token of the document, got {len(places)} for {len(weights)}")
    if len(places) and not (places.min() >= 0 and places.max() <= len(text) and (places[:, 0] <= places[:, 1]).all()):
        raise ValueError(f"spans must lie in the text, of {len(text)} characters")
    strength = np.zeros(len(text))
    for (first, last), weight in zip(places, _scaled(weights), strict=True):
        strength[first:last] = np.maximum(strength[first:last], weight)
    edges = [0, *(np.flatnonzero(np.diff(strength)) + 1), len(text)] if text else [0]
    parts = [_marked(text[a:b], strength[a]) for a, b in pairwise(edges)]
    return Html(f'<div style="white-space: pre-wrap; line-height: 1.6">{"".join(parts)}</div>')


def picture(image: Any, grid: tuple[int, int], similarity: Any) -> Any:
    """The image under its patches' colours, as a picture of Pillow.

    Args:
        image: a picture of Pillow.
        grid: rows and columns of patches. They are the first rows times columns tokens of the document, row by row.
        similarity: as in `text`.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: there are fewer tokens than patches.
    """
    weights = _weights(similarity)
    _check_grid(grid, len(weights))
    return _drawn(image, _patches(weights, grid), (0.0, 0.0, 1.0, 1.0))


def query_picture(image: Any, places: Places, similarity: Any) -> Any:
    """The picture of a query under its patches' colours, as a picture of Pillow: what each adds to the score.

    Each patch adds what it is to the token that it matches best. The one that adds least has no colour, for all add
    something.

    Args:
        image: the picture that was asked with.
        places: of the query, see `lateint.encoders.Encoder`.
        similarity: ``[Lq, Ld]``; or ``[Lq]``, such as the column of one token of the document.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: the query has no patches, or there are fewer rows than patches.
    """
    array = np.asarray(similarity, np.float32)
    if array.ndim not in (1, 2) or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"similarity must be finite numbers [Lq, Ld] or [Lq], got {array.shape}")
    if places.grid is None:
        raise ValueError("places must have a grid, for a query without a picture has no patches")
    weights = (array if array.ndim == 1 else array.max(1))[places.first :]
    _check_grid(places.grid, len(weights))
    rows, columns = places.grid
    added = weights[: rows * columns]
    return _drawn(image, _patches(added - added.min(), places.grid), places.box)


def _check_grid(grid: tuple[int, int], tokens: int) -> None:
    rows, columns = grid
    if rows < 1 or columns < 1 or rows * columns > tokens:
        raise ValueError(f"grid must be of at most {tokens} patches, as there are tokens, got {rows} x {columns}")


def _patches(weights: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.uint8]:
    rows, columns = grid
    return (255 * _scaled(weights[: rows * columns])).astype(np.uint8).reshape(rows, columns)


def _drawn(image: Any, patches: NDArray[np.uint8], box: tuple[float, float, float, float]) -> Any:
    """A picture under patches that lie in a box, whose edges are shares of its width and height."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("heatmap.picture needs Pillow: pip install pillow") from None
    left, top, right, bottom = (round(edge * length) for edge, length in zip(box, image.size * 2, strict=True))
    size = max(1, right - left), max(1, bottom - top)
    canvas = Image.new("L", image.size)
    canvas.paste(Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC), (left, top))
    heat = np.asarray(canvas, np.float64) / 255
    below = np.asarray(image.convert("RGB"), np.float64)
    opacity = (STRONGEST * heat)[..., None]
    return Image.fromarray((below * (1 - opacity) + _colours(heat) * opacity).round().astype(np.uint8))


def _weights(similarity: Any) -> NDArray[np.float32]:
    array = np.asarray(similarity, np.float32)
    if array.ndim not in (1, 2) or not np.isfinite(array).all():
        raise ValueError(f"similarity must be finite numbers [Lq, Ld] or [Ld], got {array.shape}")
    return array if array.ndim == 1 else contributions(array)


def _scaled(weights: NDArray[np.float32]) -> NDArray[np.floating]:
    """From 0 to 1; what speaks against the document counts as nothing."""
    positive = np.maximum(weights, 0)
    scaled: NDArray[np.floating] = positive / max(float(positive.max(initial=0)), 1e-12)
    return scaled


def _colours(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    where = np.linspace(0, 1, len(STOPS))
    return np.stack([np.interp(heat, where, STOPS[:, channel]) for channel in range(3)], axis=-1)


def _marked(part: str, strength: float) -> str:
    if strength <= 0:
        return escape(part)
    return f'<span style="background: rgba({INK}, {STRONGEST * strength:.2f})">{escape(part)}</span>'
