"""Whole or not at all: what is written lies beside its place until it is complete, and is moved there then."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write a file to, which takes the place of ``path`` when the block ends without an error."""
    place = Path(os.path.realpath(path))
    part = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of ``path`` when the block ends without an error.

    A kill between the two renames leaves what was there under ``.NAME.replaced``, which the next call puts back.

    Args:
        replace: whether a folder at ``path`` that is not empty may be replaced.
    """
    place = Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    recover(place)
    part, old = place.with_name(f".{place.name}.{os.getpid()}"), place.with_name(f".{place.name}.replaced")
    part.mkdir()
    try:
        yield part
        if replace and place.exists():
            place.rename(old)
        part.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        recover(place)


def recover(place: Path) -> None:
    """Puts back what a kill left half replaced."""
    old = place.with_name(f".{place.name}.replaced")
    if old.exists() and not place.exists():
        old.rename(place)
    shutil.rmtree(old, ignore_errors=True)
