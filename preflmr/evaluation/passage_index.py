"""The index of a data set's passages: built once, and used again only for the model and passages that made it.

A folder holds ``index/``, as lateint writes it, and ``made_from.json``, written after it, which says what it was made
from. An index that was made from something else is refused: it would find passages, but the wrong ones.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import Index, Ragged
from preflmr import encode
from preflmr.data.images import Images, blank, require
from preflmr.data.m2kr import Dataset, Passages
from preflmr.evaluation.config import EvalConfig
from preflmr.evaluation.results import write_json
from preflmr.weights.fingerprint import fingerprint

MADE_FROM, INDEX = "made_from.json", "index"

Stream = Iterator[tuple[NDArray[Any], NDArray[np.int64]]]


def passage_tokens(model: Any, dataset: Dataset, config: EvalConfig, *, progress: bool = True) -> Stream:
    """The passages' tokens, encoded while they are drawn; with their pictures if the model reads pictures there."""
    passages, images = dataset.passages, dataset.images
    reads = passages.images is not None and getattr(model.config, "context_concat_output_from_vision_encoder", False)
    return encode.encode_documents(
        model,
        passages.texts,
        list(_pictures(passages, images, config.on_missing)) if reads else None,
        progress=progress,
        image_source=images,
        **config.encoding,
    )


def collected(stream: Stream) -> Ragged:
    """All documents of a stream, in memory."""
    tokens, lengths = zip(*stream, strict=True)
    return Ragged.from_lengths(np.concatenate(tokens), np.concatenate(lengths))


def made_from(model: Any, passages: Passages, config: EvalConfig) -> dict[str, Any]:
    """What an index depends on, as ``made_from.json`` says it."""
    precision = str(config.dtype or "float32").removeprefix("torch.")
    return {
        "model": fingerprint(model),
        "passages": passages.fingerprint,
        "nbits": config.nbits,
        "seed": config.seed,
        "dtype": precision,
    }


def passage_index(
    model: Any,
    dataset: Dataset,
    folder: str | os.PathLike[str] | None,
    config: EvalConfig,
    *,
    tokens: Ragged | None = None,
    progress: bool = True,
) -> Index:
    """The index in ``folder`` if it is of this model and these passages; else one is built there.

    Args:
        folder: None builds in memory.
        tokens: the passages' tokens, if they are at hand.

    Raises:
        ValueError: the index in ``folder`` was made from something else; the message says what differs.
    """
    settings: dict[str, Any] = {"nbits": config.nbits, "seed": config.seed, "threads": config.threads}

    def build(**place: Any) -> Index:
        source: Any = passage_tokens(model, dataset, config, progress=progress) if tokens is None else tokens
        return Index.build(source, progress=progress, **settings, **place)

    if folder is None:
        return build()
    folder = Path(folder)
    wanted = made_from(model, dataset.passages, config)
    if not config.overwrite and (folder / INDEX).exists():
        _check_fits(folder, wanted)
        return Index.open(folder / INDEX)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MADE_FROM).unlink(missing_ok=True)
    index = build(path=folder / INDEX, overwrite=config.overwrite)
    write_json(folder / MADE_FROM, wanted)
    return index


def positions_of(index: Index, passages: Passages) -> dict[str, int] | None:
    """The position of each passage by the index's id of it; None: its ids are the positions.

    Raises:
        ValueError: the index holds other documents.
    """
    ids = index.ids
    if len(ids) == len(passages):
        if ids.dtype != object:
            if np.array_equal(ids, np.arange(len(ids))):
                return None
        elif set(ids.tolist()) == set(passages.ids):
            return passages.positions
    raise ValueError(
        f"index must hold the {len(passages):,} passages, by position or by id, got {len(index):,} other documents; "
        "it is of another collection, build it again"
    )


def _check_fits(folder: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(
            f"index {folder} does not say what it was made from ({MADE_FROM} is missing or damaged): "
            "choose another folder, or overwrite it"
        ) from None
    names = {"model": "another model", "passages": "other passages"}
    differing = [
        names.get(key) or f"{key} {found.get(key)} where {value} is asked for"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"index {folder} is stale: it was made from {', '.join(differing)}; choose another folder, or overwrite it"
        )


def _pictures(passages: Passages, images: Images | None, on_missing: str) -> Iterator[Any]:
    for id, path in zip(passages.ids, passages.images or itertools.repeat(None), strict=False):
        if path is not None and on_missing == "error":
            require(images, [path], f"passage {id!r}")
        if path is None or (images is not None and path in images):
            yield path
        else:
            yield blank() if on_missing == "blank" else None
