"""Where pictures come from: folders, zip and tar archives, and what to do about one that is missing or broken.

An archive is read without a shared file handle or lock: its table of contents is read once, and every picture opens the
archive for itself. So any number of threads, forked or spawned workers may read from one `Images`. What is kept of a
table of contents are a few numbers a member, not their names: archives of millions of pictures fit.
"""

from __future__ import annotations

import io
import os
import posixpath
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from preflmr.data.ids import Digests, Positions

if TYPE_CHECKING:
    from PIL import Image as pillow

Root: TypeAlias = str | os.PathLike[str]

ON_MISSING = ("error", "skip", "blank")
BLANK_SIZE = (336, 336)  # what the published evaluation shows a model where there is no picture

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, then the lengths of its name and extra field


class MissingImage(FileNotFoundError):
    """No root holds the picture; the message names both."""


class BrokenImage(ValueError):
    """The file is there but no picture can be read from it; the message names it."""


def blank() -> pillow.Image:
    """The picture that stands for an absent one: black, 336 x 336, RGB."""
    from PIL import Image

    return Image.new("RGB", BLANK_SIZE)


class Images:
    """Pictures by their path inside a folder or archive, or inside the first of several that holds it.

    Args:
        root: a folder, a ``.zip``, an uncompressed ``.tar``, or a list of them.

    Raises:
        FileNotFoundError: a root is neither a folder nor a file.
        ValueError: a file is no such archive, or there is no root.
    """

    def __init__(self, root: Root | Sequence[Root]) -> None:
        roots = [root] if isinstance(root, (str, os.PathLike)) else list(root)
        if not roots:
            raise ValueError("root must be a folder, a .zip, a .tar or a list of them, got an empty list")
        self.roots = [Path(one) for one in roots]
        self._sources = [_source(path) for path in self.roots]

    @classmethod
    def under(cls, folder: Root) -> Images:
        """Those of a data set's folder: ``images.zip``, ``images.tar``, then ``images/``, then the folder itself."""
        folder = Path(folder)
        names = ("images.zip", "images.tar", "images", "")
        return cls([folder / name for name in names if (folder / name).exists()])

    def __contains__(self, path: str) -> bool:
        return any(source.has(path) for source in self._sources)

    def read(self, path: str) -> bytes:
        """The bytes of the file.

        Raises:
            MissingImage: no root holds it.
            BrokenImage: the archive is damaged there.
        """
        for source in self._sources:
            if source.has(path):
                return source.read(path)
        raise MissingImage(f"image {path!r} is missing: it is not in {self}")

    def open(self, path: str) -> pillow.Image:
        """The picture, decoded, as RGB (a transparent part shows the colour stored under it).

        Raises:
            MissingImage: no root holds it.
            BrokenImage: it is not a picture, or cut off.
        """
        from PIL import Image

        data = self.read(path)
        try:
            with Image.open(io.BytesIO(data)) as image:
                # Straight to RGB gives the same colours but warns about palettes with transparency.
                clear = image.mode == "P" and "transparency" in image.info
                return (image.convert("RGBA") if clear else image).convert("RGB")
        except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
            reason = "it is not a picture" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        except Image.DecompressionBombError as error:
            reason = str(error)
        raise BrokenImage(f"image {path!r} in {self} is broken: {reason}")

    def __str__(self) -> str:
        return " or ".join(map(str, self.roots))

    def __repr__(self) -> str:
        return f"Images({[str(root) for root in self.roots]})"

    def __reduce__(self) -> Any:
        return Images, (self.roots,)


def pictures(images: Images | None, paths: Iterable[str], on_missing: str = "error") -> tuple[list[Any] | None, int]:
    """The pictures of one row, and how many of them were missing or broken.

    Args:
        images: where they are; None: nowhere, so that every path is missing.
        on_missing: what a missing or broken picture does: ``"error"`` raises, ``"skip"`` gives None for the row,
            ``"blank"`` puts a black picture in its place.

    Raises:
        MissingImage, BrokenImage: as `Images.open`, with ``on_missing="error"``.
        ValueError: ``on_missing`` is none of the three.
    """
    if on_missing not in ON_MISSING:
        raise ValueError(f"on_missing must be one of {', '.join(ON_MISSING)}, got {on_missing!r}")
    found: list[Any] = []
    absent = 0
    for path in paths:
        try:
            if images is None:
                raise MissingImage(f"image {path!r} is missing: no folder or archive of images was given")
            found.append(images.open(path))
        except (MissingImage, BrokenImage):
            if on_missing == "error":
                raise
            absent += 1
            found.append(blank())
    return (None if absent and on_missing == "skip" else found), absent


def require(images: Images | None, paths: Iterable[str], who: str) -> None:
    """Checks, without opening any, that every picture is there.

    Args:
        who: begins the message: whose pictures these are.

    Raises:
        MissingImage: one is not.
    """
    for path in paths:
        if images is None or path not in images:
            where = "no folder or archive of images was given" if images is None else f"not in {images}"
            raise MissingImage(f"{who}: image {path!r} is missing: {where}")


class _Folder:
    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"images: there is no folder, zip or tar {path}")
        self._path = path

    def has(self, path: str) -> bool:
        return (self._path / path).is_file()

    def read(self, path: str) -> bytes:
        return (self._path / path).read_bytes()


class _Archive:
    """Members by name: what ``contents`` says of each, as rows of numbers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        digests, numbers = Digests(), array("Q")
        for name, row in self._contents():
            digests.add(posixpath.normpath(name))
            numbers.extend(row)
        found = digests.ascending()
        self._numbers = np.frombuffer(numbers, np.uint64).reshape(len(found.first), -1)
        self._positions = Positions((), found)

    def has(self, path: str) -> bool:
        return posixpath.normpath(path) in self._positions

    def read(self, path: str) -> bytes:
        row = self._numbers[self._positions[posixpath.normpath(path)]].tolist()
        try:
            return self._member(*row)
        except (struct.error, zlib.error, ValueError) as error:
            raise BrokenImage(f"image {path!r} in {self._path} is broken: {error}") from None

    def _contents(self) -> Iterator[tuple[str, Sequence[int]]]:
        raise NotImplementedError

    def _member(self, *row: int) -> bytes:
        raise NotImplementedError


class _Zip(_Archive):
    def _contents(self) -> Iterator[tuple[str, Sequence[int]]]:
        try:
            with zipfile.ZipFile(self._path) as archive:
                # Of two members of a name the last one counts.
                members = {posixpath.normpath(info.filename): info for info in archive.infolist()}
        except zipfile.BadZipFile as error:
            raise ValueError(f"images: {self._path} is not a zip archive: {error}") from None
        for name, info in members.items():
            yield name, (info.header_offset, info.compress_size, info.CRC, info.compress_type, info.flag_bits)

    def _member(self, *row: int) -> bytes:
        offset, size, checksum, method, flags = row
        with self._path.open("rb") as file:
            file.seek(offset)
            signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if signature != b"PK\3\4":
                raise ValueError("the archive is damaged")
            file.seek(name + extra, os.SEEK_CUR)
            data = file.read(size)
        if flags & 1:
            raise ValueError("it is encrypted")
        if method == zipfile.ZIP_DEFLATED:
            data = zlib.decompress(data, -zlib.MAX_WBITS)
        elif method != zipfile.ZIP_STORED:
            raise ValueError(f"compression method {method} is not read, only stored and deflated")
        if zlib.crc32(data) != checksum:
            raise ValueError("its checksum does not match")
        return data


class _Tar(_Archive):
    def _contents(self) -> Iterator[tuple[str, Sequence[int]]]:
        members: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(self._path, "r:") as archive:
                for info in archive:
                    if info.isreg():
                        members[posixpath.normpath(info.name)] = info.offset_data, info.size  # the last one counts
                    archive.members = []  # type: ignore[attr-defined]  # or it would keep all of them
        except tarfile.TarError as error:
            raise ValueError(f"images: {self._path} is not an uncompressed tar archive: {error}") from None
        yield from members.items()

    def _member(self, *row: int) -> bytes:
        offset, size = row
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise ValueError("the archive is cut off")
        return data


def _source(path: Path) -> _Folder | _Archive:
    if not path.is_file():
        return _Folder(path)
    return _Tar(path) if path.name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")) else _Zip(path)
