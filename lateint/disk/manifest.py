"""The manifest of an index: what there is, as docs/format.md lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lateint.calibration import Calibration
from lateint.text.analyzer import Analyzer
from lateint_kernels.codes.residual import NBITS

FORMAT, VERSION = "lateint", 3
WITHOUT_GROUPS = 2  # the version of an index none of whose segments has groups, and whose texts are not searched
MANIFEST = "index.json"
INT, STRING = "int64", "string"  # kinds of ids
STEPS = 1e-21, 1e17  # between which a step must be, for scores are float32
MOST = 1 << 48  # of anything
CODEC = ("dim", "width", "block", "nbits", "centroids", "cells")


class FormatError(ValueError):
    """A folder is not an index, or a damaged one, or one of a newer format."""


@dataclass(frozen=True)
class File:
    """One .npy image: what its header says, its length, the checksum of all of it, and where in its file it begins."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    crc32: int
    offset: int = 0

    def to_json(self) -> dict[str, Any]:
        """As ``index.json`` holds it."""
        offset = {"offset": self.offset} if self.offset else {}
        return {
            **offset,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "bytes": self.bytes,
            "crc32": self.crc32,
        }


@dataclass(frozen=True)
class Bundle:
    """A file of several images: its length, and the images by the names of their arrays, without the segment's."""

    bytes: int
    arrays: Mapping[str, File]

    def to_json(self) -> dict[str, Any]:
        """As ``index.json`` holds it."""
        return {"bytes": self.bytes, "arrays": {name: file.to_json() for name, file in self.arrays.items()}}


@dataclass(frozen=True)
class Deletion:
    """Which documents of a segment are deleted.

    Attributes:
        array: its name.
        documents: how many; None where a version 1 index does not say.
        mask: whether it is a bit for each document, not a position for each deleted one.
    """

    array: str
    documents: int | None = None
    mask: bool = False


@dataclass(frozen=True)
class Segment:
    """One immutable run of documents.

    Attributes:
        name: what the names of its arrays begin with.
        documents: how many, deleted ones included.
        tokens: of all of them.
        deleted: which of them are deleted; None: none is.
        lists: centroids that have a list, where the others are left out; None: all have.
        hashed: whether there is a table that finds ids by their hashes.
        residual_norm: how far a token is from its centroid, on average, on the scale of tokens; None: not known.
        groups: of arrays that it has besides, as `lateint.disk.layout.GROUPS` has them.
    """

    name: str
    documents: int
    tokens: int
    deleted: Deletion | None = None
    lists: int | None = None
    hashed: bool = False
    residual_norm: float | None = None
    groups: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As ``index.json`` holds it."""
        values: dict[str, Any] = {"name": self.name, "documents": self.documents, "tokens": self.tokens}
        if self.deleted is not None:
            kind = "mask" if self.deleted.mask else "positions"
            values["deleted"] = {"array": self.deleted.array, "kind": kind, "documents": self.deleted.documents}
        if self.lists is not None:
            values["lists"] = self.lists
        if self.hashed:
            values["hashed"] = True
        if self.residual_norm is not None:
            values["residual_norm"] = self.residual_norm
        if self.groups:
            values["groups"] = list(self.groups)
        return values


@dataclass(frozen=True)
class Manifest:
    """What an index says about itself; keys as in docs/format.md.

    Attributes:
        width: ``dim`` rounded up to a multiple of 8.
        block: rows of a rotation matrix.
        step: what one unit of a byte means.
        seed: that the codec was learned with; None: not known.
        ids: `INT` or `STRING`.
        files: by their names; none where an index is in memory.
        version: of the format in which it was read.
        generation: how many commits there were since the index was built.
        next_segment: number of the next segment; None: one more than there are.
        next_id: of a document that comes without one; None: one more than the largest.
        codec: folder of the codec's files; empty: that of the manifest.
        codec_crc32: of the codec's numbers; None: not known.
        training: what the codec was learned from: ``tokens`` and ``residual_norm``; None: not known.
        analyzer: that makes terms of texts; None: they are not searched.
        encoder: what made the tokens: its ``name`` and ``settings``; None: not known.
        calibration: what was measured of the recall of searches; None: nothing was.
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
    files: Mapping[str, File | Bundle] = field(default_factory=dict)
    version: int = VERSION
    generation: int = 0
    next_segment: int | None = None
    next_id: int | None = None
    codec: str = ""
    codec_crc32: int | None = None
    training: Mapping[str, Any] | None = None
    analyzer: Analyzer | None = None
    encoder: Mapping[str, Any] | None = None
    calibration: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``index.json`` holds it, in `version_to_write`."""
        optional = ("next_id", "codec_crc32", "training", "encoder")
        return {
            "format": FORMAT,
            "version": self.version_to_write,
            "generation": self.generation,
            **{key: getattr(self, key) for key in CODEC},
            "step": self.step,
            "seed": self.seed,
            "ids": self.ids,
            "next_segment": self.segment_number,
            **({"codec": self.codec} if self.codec else {}),
            **{key: value for key in optional if (value := getattr(self, key)) is not None},
            **({} if self.calibration is None else {"calibration": self.calibration.to_json()}),
            **({} if self.analyzer is None else {"analyzer": self.analyzer.to_json()}),
            "segments": [segment.to_json() for segment in self.segments],
            "files": {name: file.to_json() for name, file in self.files.items()},
        }

    @property
    def version_to_write(self) -> int:
        """The first version that can say all of this."""
        more = self.analyzer is not None or any(segment.groups for segment in self.segments)
        return VERSION if more else WITHOUT_GROUPS

    @property
    def segment_number(self) -> int:
        """Of the next segment: no segment had it, and none has it, whatever the manifest says."""
        numbers = [int(end) for segment in self.segments if (end := segment.name.rsplit("/")[-1]).isdecimal()]
        free = 1 + max([-1, *numbers])
        return max(free, len(self.segments) if self.next_segment is None else self.next_segment)

    def codec_array(self, name: str) -> str:
        """The full name of an array of the codec."""
        return f"{self.codec}/{name}" if self.codec else name

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Manifest:
        """What ``index.json`` says; keys that are not known are ignored.

        Raises:
            KeyError: it lacks a key.
            TypeError, ValueError: a value cannot be.
        """
        sizes = {key: _size(values, key) for key in CODEC}
        _check_sizes(**sizes)
        step = values["step"]
        if type(step) not in (int, float) or not STEPS[0] < step < STEPS[1]:
            raise ValueError(f"step cannot be {step!r}")
        if values["ids"] not in (INT, STRING):
            raise ValueError(f"ids cannot be {values['ids']!r}")
        version = values["version"]
        if not isinstance(values["segments"], list) or (version == 1 and not values["segments"]):
            raise ValueError(f"segments cannot be {values['segments']!r}")
        if not isinstance(values["files"], dict):
            raise ValueError(f"files cannot be {values['files']!r}")
        files = {_name(name): _file(entry) for name, entry in values["files"].items()}
        segments = tuple(_segment(segment, version) for segment in values["segments"])
        if len({segment.name for segment in segments}) < len(segments):
            raise ValueError("two segments cannot have one name")
        if sum(segment.documents for segment in segments) >= 1 << 32:
            raise ValueError("segments cannot have 4,294,967,296 documents or more")
        training = values.get("training")
        if training is not None and not all(isinstance(training[key], (int, float)) for key in _TRAINING):
            raise ValueError(f"training cannot be {training!r}")
        return cls(
            **sizes,
            step=float(step),
            seed=values.get("seed"),
            segments=segments,
            ids=values["ids"],
            files=files,
            version=version,
            generation=_size(values, "generation") if version > 1 else 0,
            next_segment=_size(values, "next_segment") if version > 1 else None,
            next_id=_integer(values, "next_id") if "next_id" in values else None,
            codec=_name(values["codec"]) if values.get("codec") else "",
            codec_crc32=_size(values, "codec_crc32") if "codec_crc32" in values else None,
            training=None if training is None else {key: training[key] for key in _TRAINING},
            analyzer=_analyzer(values) if version >= VERSION else None,
            encoder=_encoder(values),
            calibration=Calibration.from_json(known) if (known := values.get("calibration")) is not None else None,
        )


_TRAINING = ("tokens", "residual_norm")


def _encoder(values: Mapping[str, Any]) -> dict[str, Any] | None:
    encoder = values.get("encoder")
    if encoder is None:
        return None
    if not isinstance(encoder["name"], str) or not isinstance(encoder["settings"], dict):
        raise ValueError(f"encoder cannot be {encoder!r}")
    return {"name": encoder["name"], "settings": encoder["settings"]}


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


def _segment(values: Mapping[str, Any], version: int) -> Segment:
    name, documents, deleted = _name(values["name"]), _size(values, "documents"), values.get("deleted")
    if deleted is not None:
        if version == 1:
            deleted = Deletion(f"{name}/{_name(deleted)}")
        elif deleted["kind"] not in ("positions", "mask") or _size(deleted, "documents") > documents:
            raise ValueError(f"deleted cannot be {deleted!r}")
        else:
            deleted = Deletion(_name(deleted["array"]), _size(deleted, "documents"), deleted["kind"] == "mask")
    norm = values.get("residual_norm")
    if norm is not None and not isinstance(norm, (int, float)):
        raise ValueError(f"residual_norm cannot be {norm!r}")
    return Segment(
        name,
        documents,
        _size(values, "tokens"),
        deleted,
        _size(values, "lists") if values.get("lists") is not None else None,
        values.get("hashed") is True,
        norm,
        _groups(values) if version >= VERSION else (),
    )


def _groups(values: Mapping[str, Any]) -> tuple[str, ...]:
    groups = values.get("groups", [])
    if not isinstance(groups, list) or len(set(groups)) < len(groups):
        raise ValueError(f"groups cannot be {groups!r}")
    return tuple(_name(group) for group in groups)


def _analyzer(values: Mapping[str, Any]) -> Analyzer | None:
    analyzer = values.get("analyzer")
    if analyzer is None:
        return None
    if not isinstance(analyzer, dict):
        raise ValueError(f"analyzer cannot be {analyzer!r}")
    return Analyzer.from_json(analyzer)


def _file(entry: Mapping[str, Any]) -> File | Bundle:
    if "arrays" in entry:
        arrays = {_name(name): _image(image) for name, image in entry["arrays"].items()}
        return Bundle(_size(entry, "bytes"), arrays)
    return _image(entry)


def _image(entry: Mapping[str, Any]) -> File:
    shape = entry["shape"]
    if not isinstance(entry["dtype"], str):
        raise ValueError(f"dtype cannot be {entry['dtype']!r}")
    if not isinstance(shape, list) or any(type(size) is not int or not 0 <= size <= MOST for size in shape):
        raise ValueError(f"shape cannot be {shape!r}")
    offset = _size(entry, "offset") if "offset" in entry else 0
    return File(entry["dtype"], tuple(shape), _size(entry, "bytes"), _size(entry, "crc32"), offset)


def _name(name: Any) -> str:
    """Below the folder of the index, whatever it is."""
    if not isinstance(name, str) or any(part in ("", ".", "..") or not part.isprintable() for part in name.split("/")):
        raise ValueError(f"a file cannot be {name!r}")
    return name


def _size(values: Mapping[str, Any], key: str) -> int:
    number = values[key]
    if type(number) is not int or not 0 <= number <= MOST:
        raise ValueError(f"{key} cannot be {number!r}")
    return number


def _integer(values: Mapping[str, Any], key: str) -> int:
    number = values[key]
    if type(number) is not int:
        raise ValueError(f"{key} cannot be {number!r}")
    return number
