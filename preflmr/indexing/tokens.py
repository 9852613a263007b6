"""The tokens of passages, encoded while they are drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import Ragged
from preflmr import encode
from preflmr.data.images import Images, blank, require
from preflmr.data.passages import Passages

Stream = Iterator[tuple[NDArray[Any], NDArray[np.int64]]]


def passage_tokens(
    model: Any,
    passages: Passages,
    images: Images | None,
    *,
    on_missing: str = "error",
    progress: bool = True,
    **encoding: Any,
) -> Stream:
    """A stream of (tokens ``[T, dim]``, lengths ``[n]``); passages that have pictures are read with them.

    Args:
        images: where pictures are.
        on_missing: what a missing picture does: ``"error"``; ``"blank"`` shows a black one; ``"skip"`` leaves the
            picture out.
        encoding: of `preflmr.encode.encode_documents`.

    Raises:
        MissingImage: one is, and ``on_missing`` is ``"error"``; before anything is encoded.
    """
    pictures = None if passages.images is None else list(_pictures(passages, images, on_missing))
    return encode.encode_documents(model, passages.texts, pictures, progress=progress, image_source=images, **encoding)


def collected(stream: Stream) -> Ragged:
    """All documents of a stream, in memory."""
    tokens, lengths = zip(*stream, strict=True)
    return Ragged.from_lengths(np.concatenate(tokens), np.concatenate(lengths))


def _pictures(passages: Passages, images: Images | None, on_missing: str) -> Iterator[Any]:
    for id, path in zip(passages.ids, passages.images or itertools.repeat(None), strict=False):
        if path is not None and on_missing == "error":
            require(images, [path], f"passage {id!r}")
        if path is None or (images is not None and path in images):
            yield path
        else:
            yield blank() if on_missing == "blank" else None
