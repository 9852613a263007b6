"""The index of a data set's passages: built once, and used again only for the model and passages that made it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lateint import Index, Ragged
from preflmr.data.m2kr import Dataset, Passages
from preflmr.evaluation.config import EvalConfig
from preflmr.indexing.passage_index import PassageIndex, check_free, differences, made_from, read_about
from preflmr.indexing.tokens import collected, passage_tokens
from preflmr.retrievers import adapted


def read_passages(model: Any, dataset: Dataset, config: EvalConfig) -> Passages:
    """The passages as the model reads them: with their pictures, or without."""
    reads = config.document_pictures
    if reads is None:
        reads = adapted(model).reading.document_pictures
    return dataset.passages if reads else Passages(dataset.passages.ids, dataset.passages.texts)


def tokens_of(model: Any, dataset: Dataset, config: EvalConfig, *, progress: bool = True) -> Ragged:
    """All tokens of the passages, in memory."""
    passages, options = read_passages(model, dataset, config), config.encoding
    return collected(
        passage_tokens(model, passages, dataset.images, on_missing=config.on_missing, progress=progress, **options)
    )


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
        folder: as `preflmr.indexing.passage_index` says; None builds in memory.
        tokens: the passages' tokens, if they are at hand.

    Raises:
        FileExistsError: there is something else in ``folder``.
        ValueError: the index in ``folder`` was made from something else; the message says what differs.
    """
    passages = read_passages(model, dataset, config)
    settings: dict[str, Any] = {"nbits": config.nbits, "seed": config.seed, "threads": config.threads}
    settings["progress"] = progress
    reading = {"on_missing": config.on_missing, **config.encoding}
    if folder is None:
        if tokens is None:
            stream: Any = passage_tokens(model, passages, dataset.images, progress=progress, **reading)
        return Index.build(stream if tokens is None else tokens, **settings)
    wanted = made_from(model, passages, nbits=config.nbits, seed=config.seed, dtype=config.dtype)
    if not config.overwrite and Path(folder).is_dir() and any(Path(folder).iterdir()):
        check_free(folder, overwrite=True)
        if differing := differences(read_about(Path(folder)), wanted):
            what = f"it was made from {', '.join(differing)}"
            raise ValueError(f"index {folder} is stale: {what}; choose another folder, or overwrite it")
        return PassageIndex.open(folder).index
    return PassageIndex.build(
        model,
        passages,
        folder,
        about={"source": f"{dataset.task.name} {dataset.split}"},
        images=dataset.images,
        tokens=tokens,
        overwrite=config.overwrite,
        **settings,
        **reading,
    ).index


def positions_of(index: Index, passages: Passages) -> Mapping[str, int] | None:
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
