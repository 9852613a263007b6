"""The doors through which an index is opened: one that is in a folder or an object store, or several as one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateint.changing import merging
from lateint.changing.verification import check_groups
from lateint.disk import remote, store
from lateint.index.base import Base
from lateint.index.latest import last, make_room
from lateint.snapshot import Snapshot
from lateint.state import State
from lateint_kernels.devices import HOST, Place

if TYPE_CHECKING:
    from typing_extensions import Self


class Opening(Base):
    """How an index that is there is opened."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: Any = None,
        verify: bool = False,
        cache: str | os.PathLike[str] | None = None,
        device: Any = None,
        device_memory: int | None = None,
    ) -> Self:
        """Opens an index by mapping its files into memory, which takes milliseconds whatever their size.

        Args:
            path: the folder that `build` wrote; or the url of one in an object store (``"s3://bucket/index"``), which
                `push` wrote, for searching. That needs fsspec (``pip install lateint[remote]``) and what it needs for
                the store.
            cache: for a url, the folder of local copies: files are copied once, compared with their checksums, and
                mapped; of the same url only the newest are kept. Any number of processes may share one.
            encoder: what encodes texts, see `build`; it must be the one with which the index was built.
            verify: compare every file with its checksum and check all numbers in it first, which reads all of them;
                small files always are. For an index that somebody else made, see docs/security.md.
            device: where searches run: None or ``"cpu"``, or ``"cuda"``, ``"cuda:1"`` or such a ``torch.device``, to
                which the index is copied. Results are the same with the same settings, bit for bit. A list such
                as ``["cuda:0", "cuda:1"]`` gives each device a part of the documents.
            device_memory: bytes that the index may take on each device. If it needs more, its documents stay in memory
                or in their files, and those that searches look at are copied. None: it must fit.

        Raises:
            FileNotFoundError: there is nothing at ``path``.
            FormatError: it is not an index, a damaged one, or one of a newer format; the message names the file.
            TypeError, ValueError: ``device`` is none, or not there; ``encoder`` is another than that of the index.
            BackendError: ``device`` needs torch, which is not installed.
            MemoryError: ``device`` has not enough memory left, or ``device_memory`` is too little for any search.
        """
        place = Place.of(device, device_memory)
        make_room(place)
        if isinstance(path, str) and remote.is_url(path):
            return last(cls._copied(path, cache, place, encoder, verify=verify))
        if cache is not None:
            raise ValueError(f"cache goes with the url of an index, and path is {os.fspath(path)!r}")
        return last(cls._opened(path, place, encoder, verify=verify))

    @classmethod
    def merge(
        cls,
        parts: Iterable[Self | str | os.PathLike[str]],
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        device: Any = None,
        device_memory: int | None = None,
    ) -> Self:
        """Makes one index of several with the same codec, built anywhere: of all documents, one part after another.

        No document is encoded again; files are linked, or copied where a file system cannot link. A search then finds
        what it finds in an index that was built of all documents with this codec, bit for bit.

        Args:
            parts: indexes, or their paths, in the order of documents. They stay as they are.
            path: the folder to write.
            overwrite: replace an index at ``path``.
            device, device_memory: see `open`.

        Raises:
            ValueError: a part has another codec, or ids of another kind, or an id is in two parts. The message names
                the parts.
            FormatError, OSError: a part cannot be read, or ``path`` not be written. Nothing is left half-written.
        """
        if isinstance(parts, (str, os.PathLike)):
            raise TypeError(f"parts must be a list of indexes or paths, got {type(parts).__name__}")
        sources = [_source(number, part) for number, part in enumerate(parts)]
        place = Place.of(device, device_memory)
        make_room(place)
        merging.merge(sources, Path(path).absolute(), overwrite=overwrite)
        return last(cls._opened(path, place))

    @classmethod
    def _opened(
        cls, path: str | os.PathLike[str], place: Place = HOST, encoder: Any = None, *, verify: bool = False
    ) -> Self:
        folder = Path(path).absolute()
        snapshot = Snapshot.of(*store.load(folder, verify=verify), place)
        if verify:
            check_groups(snapshot.state)
        return cls(snapshot, folder, encoder=encoder)

    @classmethod
    def _copied(cls, url: str, cache: Any, place: Place, encoder: Any = None, *, verify: bool = False) -> Self:
        if cache is None:
            raise ValueError(f"cache must be a folder for local copies, for path is a url: {url}")
        local = Path(cache).absolute()
        with remote.copied(url, local) as folder:
            opened = cls._opened(folder, place, encoder, verify=verify)
        opened.path, opened._remote = None, (url, local)
        return opened


def _source(number: int, part: Base | str | os.PathLike[str]) -> merging.Source:
    """A part of `Index.merge`, as it is on disk where it is there."""
    if isinstance(part, Base) and part.path is None:
        return merging.Source(f"part {number} (in memory)", None, part._snapshot.state)
    folder = part.path if isinstance(part, Base) else Path(part).absolute()
    assert folder is not None
    return merging.Source(f"part {number} ({folder})", folder, State.of(*store.load(folder)))
