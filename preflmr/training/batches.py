"""Training batches: what is drawn for each query, and how it becomes tensors.

Everything random about a query (instruction, positive, negatives, augmentation) is a function of (seed, epoch, index),
and the order of an epoch one of (seed, epoch). So batch number n of a device is the same whenever it is asked for, by
whichever worker: to go on after a kill, a counter is enough; and two devices with half the batch draw what one draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from preflmr import instructions
from preflmr.data.images import blank, pictures
from preflmr.data.m2kr import Dataset
from preflmr.training.collator import Batch, Collator
from preflmr.training.drawing import (
    Drawn,
    View,
    augmentation,
    augmented,
    check,
    choose_instruction,
    choose_rows,
    draw_negatives,
    load_mix,
)
from preflmr.training.mining import Mined, read_mined
from preflmr.training.recipe import Data
from preflmr.training.signals import ignore

__all__ = ["Batch", "Batches", "View", "iterate", "load_mix"]

ORDER, DRAW, REDRAW, VIEW = 1, 2, 3, 4  # what random numbers are for


class Batches:
    """Batch number n of one device, ``batches[n]``, for any n: epochs follow each other without end.

    Args:
        data: the recipe's.
        datasets: by the names of ``data.mix``; see `load_mix`.
        model: reads texts and pictures.
        batch_size: queries of a batch.
        seed: of everything random.
        rank, devices: this device's number, and how many there are.
        vision: whether queries have pictures.

    Raises:
        ValueError: a question has no positive to train on, a corpus has too few passages to draw negatives from, or a
            data set too few questions for a batch of its own.
    """

    def __init__(
        self,
        data: Data,
        datasets: Mapping[str, Dataset],
        model: Any,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        devices: int = 1,
        vision: bool = True,
    ) -> None:
        self.data, self.batch_size, self.seed, self.rank, self.devices = data, batch_size, seed, rank, devices
        self.names = list(data.mix)
        self.datasets = [datasets[name] for name in self.names]
        self.sources = [data.mix[name] for name in self.names]
        self.mined: list[Mapping[str, Mined]] = [
            read_mined(source.negatives) if source.negatives else {} for source in self.sources
        ]
        for name, dataset in zip(self.names, self.datasets, strict=True):
            check(name, dataset, data.negatives)
        self.sizes = [source.size or len(one) for source, one in zip(self.sources, self.datasets, strict=True)]
        if data.homogeneous_batches:
            self.sizes = [_whole(name, n, batch_size * devices) for name, n in zip(self.names, self.sizes, strict=True)]
        self.corpora = {corpus: i for i, corpus in enumerate(sorted({one.task.name for one in self.datasets}))}
        self.collator = Collator(data, model)
        reading = self.collator.retriever.reading
        self.vision, self.separator = vision and reading.query_pictures, reading.separator
        self.instructs = data.use_instructions and reading.use_instructions
        self.augment = augmentation(data.augment)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def epoch_size(self) -> int:
        """Queries of an epoch."""
        return sum(self.sizes)

    def __getitem__(self, number: int) -> Batch:
        first = (number * self.devices + self.rank) * self.batch_size
        drawn, skipped = [], 0
        for position in range(first, first + self.batch_size):
            one, passed_over = self.draw(*divmod(position, self.epoch_size))
            drawn.append(one)
            skipped += passed_over
        batch = self.collator(drawn, self.corpora)
        batch.skipped = skipped
        return batch

    def loader(self, start: int, stop: int) -> DataLoader[Batch]:
        """Batches ``start`` to ``stop - 1``, prepared by ``data.workers`` processes."""
        return DataLoader(
            _Lookup(self),
            batch_size=None,
            sampler=range(start, stop),
            num_workers=self.data.workers,
            worker_init_fn=ignore,
            generator=torch.Generator(),  # of its own, or starting one would move the random numbers of dropout
        )

    def order(self, epoch: int) -> NDArray[np.int64]:
        """``[n, 2]``: data set and row of each query of an epoch, all shuffled together, or batches of one data set."""
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((ORDER, self.seed, epoch))
            rows = [choose_rows(len(one), n, rng) for one, n in zip(self.datasets, self.sizes, strict=True)]
            pairs = np.concatenate([np.stack([np.full_like(some, i), some], 1) for i, some in enumerate(rows)])
            if self.data.homogeneous_batches:
                pairs = np.concatenate([rng.permutation(some) for some in np.split(pairs, np.cumsum(self.sizes)[:-1])])
                batches = pairs.reshape(-1, self.batch_size * self.devices, 2)
                self._order = epoch, rng.permutation(batches).reshape(-1, 2)
            else:
                self._order = epoch, rng.permutation(pairs)
        return self._order[1]

    def draw(self, epoch: int, index: int) -> tuple[Drawn, int]:
        """Query ``index`` of an epoch, and how many rows were passed over until one had its pictures."""
        number, row = self.order(epoch)[index]
        rng = np.random.default_rng((DRAW, self.seed, epoch, index))
        for skipped in range(100):
            drawn = self._draw(int(number), int(row), rng)
            if drawn is not None:
                return drawn, skipped
            rng = np.random.default_rng((REDRAW, self.seed, epoch, index, skipped))
            row = rng.integers(len(self.datasets[number]))
        raise ValueError(f"{self.names[number]}: 100 rows in a row have no readable picture, see data.on_missing")

    def _draw(self, number: int, row: int, rng: np.random.Generator) -> Drawn | None:
        dataset, source = self.datasets[number], self.sources[number]
        example = dataset.examples[row]
        opened = self._pictures(number, example.images if self.vision else (), rng)
        if opened is None:
            return None
        instruction = choose_instruction(source, example, rng) if self.instructs else None
        positive = example.positive_ids[int(rng.integers(len(example.positive_ids)))]
        mined = self.mined[number].get(example.question_id, Mined({}, {}))
        negatives, scores = draw_negatives(dataset, example, mined, self.data.negatives, source.hard_negatives, rng)
        return Drawn(
            text=instructions.join(instruction, example.question, self.separator),
            images=opened,
            positive=dataset.passages.position(positive),
            negatives=negatives,
            scores=[mined.positives.get(positive, float("-inf")), *scores],
            example=example,
            dataset=dataset,
        )

    def _pictures(self, number: int, paths: tuple[str, ...], rng: np.random.Generator) -> list[Any] | None:
        """Of a query, or with ``data.cache_images`` their `View`s; None: pass the row over."""
        dataset, views, on_missing = self.datasets[number], self.sources[number].views, self.data.on_missing
        blanks = not paths and self.vision and self.data.without_image == "blank"
        if not self.data.cache_images:
            opened, _ = pictures(dataset.images, paths, on_missing)
            if blanks:
                return [blank()]
            return augmented(self.augment, opened, rng) if opened and self.augment is not None else opened
        if on_missing == "skip" and any(dataset.images is None or path not in dataset.images for path in paths):
            return None
        return [View(number, None, 0)] if blanks else [View(number, path, int(rng.integers(views))) for path in paths]

    def pixels(self, views: list[View]) -> torch.Tensor:
        """``[N, 3, H, W]``, of which view 0 is the picture itself, and others are augmented, always alike."""
        opened = []
        for view in views:
            on_missing = "error" if self.data.on_missing == "error" else "blank"
            found, _ = pictures(self.datasets[view.dataset].images, [view.path] if view.path else [], on_missing)
            picture = found or [blank()]
            if view.number:
                seed = (VIEW, self.seed, view.number, *blake2b(str(view.path).encode(), digest_size=8).digest())
                picture = augmented(self.augment, picture, np.random.default_rng(seed))
            opened += picture
        pixels: torch.Tensor = self.collator.retriever.model.image_processor(opened)
        return pixels


def _whole(name: str, n: int, batch: int) -> int:
    """As many of ``n`` queries as fill whole batches."""
    if n < batch:
        raise ValueError(f"{name}: data.homogeneous_batches must find a batch of {batch} queries in it, got {n}")
    return n - n % batch


class _Lookup(torch.utils.data.Dataset[Batch]):  # type: ignore[misc]  # torch is untyped here
    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Batch:
        return self.batches[number]


def iterate(batches: Batches, start: int, stop: int) -> Iterator[Batch]:
    """Batches ``start`` to ``stop - 1``; without workers, without a loader."""
    return iter(batches.loader(start, stop)) if batches.data.workers else (batches[n] for n in range(start, stop))
