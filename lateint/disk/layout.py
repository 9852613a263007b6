"""What an index consists of: every array with its dtype and shape, as docs/format.md lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.codes.residual import NBITS, depth_of

INT, STRING = "int64", "string"  # kinds of ids
SHORT_IDS = 1 << 16  # with more centroids than that, their ids have a third byte


@dataclass(frozen=True)
class Kind:
    """What an array must be.

    Attributes:
        dtype: as numpy writes it, byte order first.
        shape: -1 stands for any length.
        end: for offsets, which begin with 0: their last number, or the array whose length it is.
        filled: for offsets: nothing that they bound is empty.
    """

    dtype: str
    shape: tuple[int, ...]
    end: int | str | None = None
    filled: bool = False

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('n' if size < 0 else str(size) for size in self.shape)}]"

    def fits(self, dtype: str, shape: Sequence[int]) -> bool:
        """Whether an array of this dtype and shape will do."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(
                type(got) is int and want in (got, -1) and got >= 0 for want, got in zip(self.shape, shape, strict=True)
            )
        )

    def wrong_offsets(self, array: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> str | None:
        """What is wrong with offsets among the arrays of an index; None if nothing is, or they are not offsets."""
        end = len(arrays[self.end]) if isinstance(self.end, str) else self.end
        if end is not None and (array[0] != 0 or array[-1] != end):
            return f"must run from 0 to {end}, found {array[0]} to {array[-1]}"
        if self.filled and (stuck := np.flatnonzero(array[1:] <= array[:-1])).size:
            return f"must increase at every step, found {array[stuck[0]]} and then {array[stuck[0] + 1]}"
        return None


def kinds(manifest: Mapping[str, Any]) -> dict[str, Kind]:
    """Every array that an index with this manifest has.

    Raises:
        KeyError: the manifest lacks something.
        TypeError, ValueError: something in it cannot be.
    """
    dim, width, block, nbits, count, cells = (
        _size(manifest, key) for key in ("dim", "width", "block", "nbits", "centroids", "cells")
    )
    if nbits not in NBITS or width != -(-dim // 8) * 8 or block == 0 or width % block or 0 in (dim, count, cells):
        raise ValueError(
            f"dim {dim}, width {width}, block {block}, nbits {nbits}, centroids {count} and cells {cells} cannot be"
        )
    if not isinstance(manifest["step"], float) or not 0 < manifest["step"] < np.inf:
        raise ValueError(f"step cannot be {manifest['step']!r}")
    if manifest["ids"] not in (INT, STRING):
        raise ValueError(f"ids cannot be {manifest['ids']!r}")
    depth = depth_of(width)
    every = {
        "mean": Kind("<f4", (dim,)),
        "rotation": Kind("<f4", (width // block, block, block)),
        "permutation": Kind("<i4", (width,)),
        "centroids": Kind("|u1", (count, depth)),
        "cells": Kind("|u1", (cells, depth)),
        "cell_offsets": Kind("<i8", (cells + 1,), count, filled=True),  # a search finds something in any cell
    }
    if not isinstance(manifest["segments"], list) or not manifest["segments"]:
        raise ValueError(f"segments cannot be {manifest['segments']!r}")
    for segment in manifest["segments"]:
        every.update(_segment(segment, width * nbits // 8, nbits, count, manifest["ids"]))
    for name in every:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"a file cannot be {name!r}")
    return every


def _segment(segment: Mapping[str, Any], code_bytes: int, nbits: int, count: int, ids: str) -> dict[str, Kind]:
    name, documents, tokens = segment["name"], _size(segment, "documents"), _size(segment, "tokens")
    every = {
        f"{name}/offsets": Kind("<i8", (documents + 1,), tokens),
        f"{name}/codes": Kind("|u1", (tokens, code_bytes)),
        f"{name}/centroid_ids": Kind("<u2", (tokens,)),
        f"{name}/list_offsets": Kind("<i8", (count + 1,), f"{name}/list_documents"),
        f"{name}/list_documents": Kind("<u4", (-1,)),
    }
    if nbits < 8:
        every[f"{name}/scales"] = Kind("|u1", (tokens,))
    if count > SHORT_IDS:
        every[f"{name}/centroid_high"] = Kind("|u1", (tokens,))
    if ids == INT:
        every[f"{name}/ids"] = Kind("<i8", (documents,))
    else:
        every[f"{name}/id_bytes"] = Kind("|u1", (-1,))
        every[f"{name}/id_offsets"] = Kind("<i8", (documents + 1,), f"{name}/id_bytes")
    if "deleted" in segment:
        every[f"{name}/{segment['deleted']}"] = Kind("<u4", (-1,))
    return every


def _size(manifest: Mapping[str, Any], key: str) -> int:
    number = manifest[key]
    if type(number) is not int or number < 0:
        raise ValueError(f"{key} cannot be {number!r}")
    return number
