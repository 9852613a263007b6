"""The manifest of an index: what there is, as docs/format.md lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lateint_kernels.codes.residual import NBITS

FORMAT, VERSION = "lateint", 1
MANIFEST = "index.json"
INT, STRING = "int64", "string"  # kinds of ids
STEPS = 1e-21, 1e17  # between which a step must be, for scores are float32
MOST = 1 << 48  # of anything


class FormatError(ValueError):
    """A folder is not an index, or a damaged one, or one of a newer format."""


@dataclass(frozen=True)
class File:
    """One file: what its header says, its length, and the checksum of all of it."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Segment:
    """One immutable run of documents.

    Attributes:
        name: the folder of its arrays.
        documents: how many, deleted ones included.
        tokens: of all of them.
        deleted: the array in its folder that says which of them are deleted; None: none is.
    """

    name: str
    documents: int
    tokens: int
    deleted: str | None = None


@dataclass(frozen=True)
class Manifest:
    """What an index says about itself; keys as in docs/format.md.

    Attributes:
        width: ``dim`` rounded up to a multiple of 8.
        block: rows of a rotation matrix.
        step: what one unit of a byte means.
        seed: that the build used.
        ids: `INT` or `STRING`.
        files: by their names, ``.npy`` included; none where an index is in memory.
    """

    dim: int
    width: int
    block: int
    nbits: int
    step: float
    seed: int | None
    centroids: int
    cells: int
    segments: tuple[Segment, ...]
    ids: str
    files: Mapping[str, File] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As ``index.json`` holds it."""
        values = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for segment in values["segments"]:
            if segment["deleted"] is None:
                del segment["deleted"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Manifest:
        """What ``index.json`` says; keys that are not known are ignored.

        Raises:
            KeyError: it lacks a key.
            TypeError, ValueError: a value cannot be.
        """
        sizes = {key: _size(values, key) for key in ("dim", "width", "block", "nbits", "centroids", "cells")}
        _check_sizes(**sizes)
        step = values["step"]
        if type(step) not in (int, float) or not STEPS[0] < step < STEPS[1]:
            raise ValueError(f"step cannot be {step!r}")
        if values["ids"] not in (INT, STRING):
            raise ValueError(f"ids cannot be {values['ids']!r}")
        if not isinstance(values["segments"], list) or not values["segments"]:
            raise ValueError(f"segments cannot be {values['segments']!r}")
        segments = tuple(map(_segment, values["segments"]))
        if sum(segment.documents for segment in segments) >= 1 << 32:
            raise ValueError("segments cannot have 4,294,967,296 documents or more")
        return cls(
            **sizes,
            step=float(step),
            seed=values.get("seed"),
            segments=segments,
            ids=values["ids"],
            files={name: _file(entry) for name, entry in values["files"].items()},
        )


def _check_sizes(dim: int, width: int, block: int, nbits: int, centroids: int, cells: int) -> None:
    if not (
        nbits in NBITS
        and 1 <= dim <= 4096
        and width == -(-dim // 8) * 8
        and 1 <= block <= width
        and width % block == 0
        and 1 <= cells <= centroids <= 1 << 24
    ):
        raise ValueError(
            f"dim {dim}, width {width}, block {block}, nbits {nbits}, centroids {centroids} and cells {cells} cannot be"
        )


def _segment(values: Mapping[str, Any]) -> Segment:
    name, deleted = values["name"], values.get("deleted")
    _check_path(name)
    if deleted is not None:
        _check_path(deleted)
    return Segment(name, _size(values, "documents"), _size(values, "tokens"), deleted)


def _check_path(path: Any) -> None:
    """Below the folder of the index, whatever it is."""
    if not isinstance(path, str) or any(p in ("", ".", "..") or not p.isprintable() for p in path.split("/")):
        raise ValueError(f"a file cannot be {path!r}")


def _file(entry: Mapping[str, Any]) -> File:
    return File(entry["dtype"], tuple(entry["shape"]), entry["bytes"], entry["crc32"])


def _size(values: Mapping[str, Any], key: str) -> int:
    number = values[key]
    if type(number) is not int or not 0 <= number <= MOST:
        raise ValueError(f"{key} cannot be {number!r}")
    return number
