"""The codec of an index: mean, rotation, step and centroids, learned from a sample of tokens."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.disk import codec_folder
from lateint.disk.manifest import FormatError, Manifest
from lateint.indexing.clustering import Centroids
from lateint_kernels import to_float32
from lateint_kernels.codes import residual

SMALLEST, LARGEST = 1e-18, 1e10  # a query has 65,536 tokens of 4,096 components up to 1e18 at most: scores are finite
REACH = 8  # a component may be so many times larger than a token's largest one usually is
FEW, ODD = 4, 4096  # so many distinct tokens, or one of so many, may have components larger still: they are cut
LARGEST_BLOCK = 64  # a rotation matrix has at most so many rows; wider tokens are rotated in blocks


@dataclass(frozen=True)
class Rotation:
    """Centres tokens and makes their components alike.

    Attributes:
        mean: ``[dim]`` float32. Removing it changes no ranking: every score of a query moves by ``sum_i <q_i, mean>``.
        blocks: ``[b, block, block]`` float32, orthogonal.
        permutation: ``[width]`` int32: which component goes where; dim and above stand for zeros.
        step: what one unit of a byte means.
    """

    mean: NDArray[np.float32]
    blocks: NDArray[np.float32]
    permutation: NDArray[np.int32]
    step: float

    @property
    def width(self) -> int:
        """Components after rotation: dim rounded up to a multiple of 8."""
        return len(self.permutation)

    def apply(self, tokens: NDArray[np.generic], *, step: float | None = None, threads: int = 0) -> NDArray[np.float32]:
        """Tokens ``[n, dim]`` as ``[n, width]``, in units of ``step``."""
        return residual.rotate(
            tokens, self.mean, self.blocks, self.permutation, self.step if step is None else step, threads=threads
        )

    def invert(self, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Decoded bytes ``[n, width]`` as tokens ``[n, dim]`` on the original scale."""
        return self.turn_back(rows.astype(np.float32) - 128)

    def turn_back(self, rotated: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rotated tokens ``[n, width]`` in units of the step as tokens ``[n, dim]`` on the original scale."""
        scaled, block = rotated * np.float32(self.step), self.blocks.shape[1]
        back = np.concatenate(
            [scaled[:, b * block : (b + 1) * block] @ matrix.T for b, matrix in enumerate(self.blocks)], axis=1
        )
        tokens = np.empty_like(back)
        tokens[:, self.permutation] = back
        return tokens[:, : len(self.mean)] + self.mean


def train_rotation(pilot: NDArray[np.generic], *, seed: int, threads: int) -> Rotation:
    """Mean, random rotation and step for tokens like ``pilot [m, dim]``.

    The step lets the largest component of the pilot fit into a signed byte, unless that is more than `REACH` times what
    the largest component of a distinct token usually is (the median), for at most `FEW` distinct tokens or one of
    `ODD`: one step serves all tokens, and a few odd ones of a huge norm would leave the others nothing. What exceeds
    the step's reach is cut when it is encoded.

    Raises:
        ValueError: tokens so large or small that float32 cannot hold their products.
    """
    dim = pilot.shape[1]
    rng = np.random.default_rng(seed)
    width = -(-dim // 8) * 8
    block = max(size for size in range(1, min(width, LARGEST_BLOCK) + 1) if width % size == 0)
    mean = _mean(pilot)
    blocks = np.stack([_orthogonal(block, rng) for _ in range(width // block)])
    rotation = Rotation(mean, blocks, _dealt(_spread(pilot, mean), len(blocks), block), 1.0)
    turned = rotation.apply(pilot, threads=threads)
    peaks = np.abs(turned, out=turned).max(1)
    largest, usual = float(peaks.max()), float(np.median(peaks))
    if 0 < REACH * usual < largest:  # perhaps because most tokens are one token, which the mean is close to
        distinct = peaks[_distinct(pilot)]
        reach = REACH * float(np.median(distinct))
        if np.count_nonzero(distinct > reach) <= max(FEW, len(distinct) // ODD):
            largest = min(largest, reach)
    if largest == 0:
        largest = 1.0  # all tokens are equal
    farthest = max(largest, float(np.abs(rotation.mean).max()))
    if not (largest > SMALLEST and farthest < LARGEST):
        raise ValueError(
            f"doc_embs must hold numbers between {SMALLEST:g} and {LARGEST:g} in size, for scores are float32; the "
            f"largest component is about {farthest if farthest >= LARGEST else largest:.3g}"
        )
    return Rotation(rotation.mean, rotation.blocks, rotation.permutation, float(np.float32(largest / 127)))


def _distinct(pilot: NDArray[np.generic]) -> NDArray[np.int64]:
    """Where each of the different tokens of ``[m, dim]`` comes first."""
    rows = np.ascontiguousarray(pilot).view(np.dtype((np.void, pilot.shape[1] * pilot.itemsize)))
    return np.unique(rows, return_index=True)[1].astype(np.int64)


def _mean(pilot: NDArray[np.generic]) -> NDArray[np.float32]:
    """``[dim]``: the mean, with tokens of a huge norm counted as if they were `REACH` times as long as most."""
    chunks = [pilot[start : start + 4096] for start in range(0, len(pilot), 4096)]
    norms = np.concatenate([np.sqrt((_float64(chunk) ** 2).sum(1)) for chunk in chunks])
    weights = np.minimum(1, REACH * np.median(norms) / norms)
    total = np.zeros(pilot.shape[1])
    for i, chunk in enumerate(chunks):
        total += (_float64(chunk) * weights[4096 * i : 4096 * (i + 1), None]).sum(0)
    return (total / len(pilot)).astype(np.float32)


def _spread(pilot: NDArray[np.generic], mean: NDArray[np.float32]) -> NDArray[np.float64]:
    """``[dim]``: the sum of squares of each component, without the mean."""
    total = np.zeros(pilot.shape[1])
    for start in range(0, len(pilot), 4096):
        total += ((_float64(pilot[start : start + 4096]) - mean) ** 2).sum(0)
    return total


def _dealt(spread: NDArray[np.float64], blocks: int, block: int) -> NDArray[np.int32]:
    """The permutation that makes blocks alike: components are dealt out to them like cards, the widest spread first,
    and each time in the other direction.
    """
    width = blocks * block
    if blocks == 1:
        return np.arange(width, dtype=np.int32)
    padded = np.concatenate([spread, np.zeros(width - len(spread))])
    dealt = np.argsort(-padded, kind="stable").reshape(block, blocks)
    dealt[1::2] = dealt[1::2, ::-1].copy()
    return np.ascontiguousarray(dealt.T.ravel(), np.int32)


def _float64(tokens: NDArray[np.generic]) -> NDArray[np.float64]:
    return to_float32(tokens).astype(np.float64)


def _orthogonal(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return np.ascontiguousarray(q * np.sign(np.diag(r)), np.float32)


@dataclass(frozen=True)
class Training:
    """What a codec was learned from, to see later how well it fits other tokens.

    Attributes:
        tokens: of all documents that the sample was drawn from.
        residual_norm: how far a token of the sample is from its centroid, on average, on the scale of tokens.
    """

    tokens: int
    residual_norm: float


@dataclass(frozen=True, eq=False)
class Codec:
    """How tokens become codes and back; learned by `lateint.train_codec`, and never changed.

    Indexes with the same codec have the same `crc32`: they can be merged, and give a token the same code.

    Attributes:
        rotation: centres and rotates tokens.
        centroids: what residuals are relative to.
        nbits: bits a component.
        seed: of the random rotation and of k-means; None: not known.
        training: what it was learned from; None: not known.
    """

    rotation: Rotation
    centroids: Centroids
    nbits: int
    seed: int | None = None
    training: Training | None = None

    def __repr__(self) -> str:
        return f"Codec(dim {self.dim}, {self.nbits} bits, {len(self.centroids):,} centroids, crc32 {self.crc32:08x})"

    @property
    def dim(self) -> int:
        """Components of a token."""
        return len(self.rotation.mean)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the codec by their names in docs/format.md."""
        return {
            "mean": self.rotation.mean,
            "rotation": self.rotation.blocks,
            "permutation": self.rotation.permutation,
            "centroids": self.centroids.rows,
            "cells": self.centroids.cells,
            "cell_offsets": self.centroids.cell_offsets,
        }

    @property
    def numbers(self) -> dict[str, Any]:
        """What a manifest says about the codec, by the keys of docs/format.md."""
        return {
            "dim": self.dim,
            "width": self.rotation.width,
            "block": self.rotation.blocks.shape[1],
            "nbits": self.nbits,
            "step": self.rotation.step,
            "seed": self.seed,
            "centroids": len(self.centroids),
            "cells": len(self.centroids.cells),
        }

    @property
    def described(self) -> dict[str, Any]:
        """What the manifest of an index says about the codec."""
        training = None if self.training is None else vars(self.training)
        return {**self.numbers, "codec_crc32": self.crc32, "training": training}

    @cached_property
    def crc32(self) -> int:
        """Of the numbers of all arrays, in the order of `arrays`, then of step as ``<f8`` and nbits as ``|u1``."""
        crc = 0
        for array in self.arrays.values():
            crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
        return zlib.crc32(struct.pack("<dB", self.rotation.step, self.nbits), crc)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the codec to the folder ``path``, whole or not at all.

        Raises:
            OSError: ``path`` exists (and is not a codec, or ``overwrite`` is False), or cannot be written.
        """
        training = None if self.training is None else asdict(self.training)
        codec_folder.write(
            Path(path), {**self.numbers, "training": training, "crc32": self.crc32}, self.arrays, overwrite
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Codec:
        """The codec that `save` wrote to ``path``, every checksum compared.

        Raises:
            FileNotFoundError: there is nothing at ``path``.
            FormatError: it is not a codec, a damaged one, or one of a newer format; the message names the file.
        """
        manifest, values, arrays = codec_folder.load(Path(path))
        training = None if values["training"] is None else Training(**values["training"])
        codec = replace(cls.of(manifest, arrays), training=training)
        if codec.crc32 != values["crc32"]:
            raise FormatError(f"{path} holds another codec than it says, by its crc32; it is damaged")
        return codec

    @classmethod
    def of(cls, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> Codec:
        """That of an index with this manifest and these arrays."""

        def of(name: str) -> NDArray[Any]:
            return arrays[manifest.codec_array(name)]

        return cls(
            Rotation(of("mean"), of("rotation"), of("permutation"), manifest.step),
            Centroids(of("centroids"), of("cells"), of("cell_offsets")),
            manifest.nbits,
            manifest.seed,
            None if manifest.training is None else Training(**manifest.training),
        )
