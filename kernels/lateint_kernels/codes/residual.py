"""Residual codes: a token as its centroid and a few bits a component on a scale of its own.

A token is centred, rotated and divided by a common ``step`` (`rotate`); what is left after its centroid is cut to
``2**nbits`` uniform levels whose distance is chosen per token (`encode`). Decoding adds centroid and level in unsigned
bytes, so scores are integer dot products, the same bits on every instruction set. Rotation makes the components of a
residual alike, which is what uniform levels and one scale a token need (the family of RaBitQ, arXiv 2405.12497, and
TurboQuant).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.arrays import DTYPE_CODES, Array

NBITS = (1, 2, 4, 8)
DEPTH_STEP = 64  # rows of centroids and of decoded tokens are padded to a multiple of this


def depth_of(width: int) -> int:
    """The row length of centroids for tokens of ``width`` components.

    >>> depth_of(128), depth_of(96)
    (128, 128)
    """
    return -(-width // DEPTH_STEP) * DEPTH_STEP


def rotate(
    tokens: Array,
    mean: NDArray[np.float32],
    rotation: NDArray[np.float32],
    permutation: NDArray[np.int32],
    step: float,
    *,
    threads: int = 0,
) -> NDArray[np.float32]:
    """Tokens less their mean, components permuted, each block of them rotated, divided by ``step``.

    Args:
        tokens: ``[n, dim]`` float32, float16 or bfloat16.
        mean: ``[dim]``.
        rotation: ``[blocks, block, block]``, orthogonal; a block of components is a row vector times its matrix.
        permutation: ``[width]``, width = blocks * block >= dim: component i comes from ``permutation[i]`` < width;
            values from dim on stand for zeros. With a single block it is 0, 1, 2, ...
        step: what one unit of the result means.

    Returns:
        ``[n, width]`` float32.

    Raises:
        ValueError: a number of the permutation cannot be, or the mean has more than ``width``.
    """
    out: NDArray[np.float32] = _cpu.rotate(
        tokens, DTYPE_CODES[tokens.dtype], mean, rotation, permutation, step, threads
    )
    return out


def to_bytes(scaled: NDArray[np.float32], *, threads: int = 0) -> NDArray[np.uint8]:
    """Rotated tokens ``[n, width]`` as bytes ``[n, depth]``: ``clip(round(x) + 128, 0, 255)``, padded with 128."""
    out: NDArray[np.uint8] = _cpu.to_bytes(scaled, depth_of(scaled.shape[1]), threads)
    return out


def peaks(rows: NDArray[np.uint8], scaled: NDArray[np.float32], *, threads: int = 0) -> NDArray[np.float32]:
    """The largest size of a component of each token whose bytes ``rows [n, depth]`` reach 0 or 255, else 0: ``[n]``."""
    found: NDArray[np.float32] = _cpu.peaks(rows, scaled, threads)
    return found


def levels(nbits: int) -> NDArray[np.int8]:
    """What a code adds to its centroid: ``[256, 2**nbits]`` by scale byte s and code c, nbits 1, 2 or 4.

    ``round_half_up(|2c - (2^nbits - 1)| s / (2 unit))`` with the sign of ``2c - (2^nbits - 1)``; unit is 16 for 4 bits,
    else 4.

    >>> levels(2)[40].tolist()
    [-15, -5, 5, 15]
    """
    unit = 16 if nbits == 4 else 4
    twice = 2 * np.arange(2**nbits) - (2**nbits - 1)
    magnitude = (np.abs(twice) * np.arange(256)[:, None] + unit) // (2 * unit)
    table: NDArray[np.int8] = (np.sign(twice) * magnitude).astype(np.int8)
    return table


def encode(
    scaled: NDArray[np.float32],
    centroid_ids: NDArray[np.uint32],
    centroids: NDArray[np.uint8],
    nbits: int,
    *,
    threads: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Codes of rotated tokens: least-squares level distance for each token, then the nearest level of each component.

    Args:
        scaled: ``[n, width]`` from `rotate`.
        centroid_ids: ``[n]``.
        centroids: ``[K, depth]``.
        nbits: 1, 2, 4 or 8; with 8 the codes are the bytes of `to_bytes` and scales are 0.

    Returns:
        codes ``[n, width * nbits / 8]`` (byte j holds components ``j + s * width * nbits / 8`` in bits
        ``[s * nbits, (s + 1) * nbits)``) and scales ``[n]``.
    """
    codes, scales = _cpu.encode(scaled, centroid_ids, centroids, nbits, threads)
    return codes, scales


def decode(
    codes: NDArray[np.uint8],
    scales: NDArray[np.uint8] | None,
    centroid_ids: NDArray[np.uint32],
    centroids: NDArray[np.uint8],
    nbits: int,
    width: int,
) -> NDArray[np.uint8]:
    """The bytes ``[n, width]`` that codes stand for; value = (byte - 128) * step."""
    low, high = split_ids(centroid_ids, len(centroids))
    out: NDArray[np.uint8] = _cpu.decode(codes, None if nbits == 8 else scales, low, high, centroids, nbits, width)
    return out


def split_ids(centroid_ids: NDArray[np.uint32], count: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8] | None]:
    """Centroid ids as they are stored: low 16 bits, and bits 16-23 if there are more than 65,536 centroids."""
    high = (centroid_ids >> 16).astype(np.uint8) if count > 1 << 16 else None
    return (centroid_ids & 0xFFFF).astype(np.uint16), high
