"""The questions of a data set as queries: instructions, pictures, and what is missing of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.timings import Timings
from preflmr import encode
from preflmr.data.images import pictures, require
from preflmr.data.m2kr import Dataset, Example
from preflmr.evaluation.config import EvalConfig
from preflmr.instructions import join
from preflmr.retrievers import adapted


class Questions:
    """Turns examples into queries of a model, and counts what is missing.

    Attributes:
        missing: how many pictures were shown as a black one, or had their question left out.
        without_image, instruction: as the settings say, or else the model; ``"text"`` for one that reads no pictures.
    """

    def __init__(self, model: Any, dataset: Dataset, config: EvalConfig, timings: Timings) -> None:
        self.model, self.dataset, self.config, self.timings = model, dataset, config, timings
        self.reading = adapted(model).reading
        self.sees = self.reading.query_pictures
        self.without_image = (config.without_image or self.reading.without_image) if self.sees else "text"
        self.instruction = config.instruction
        if self.instruction is None and not self.reading.use_instructions:
            self.instruction = ""
        self.missing = 0

    @property
    def examples(self) -> Sequence[Example]:
        return self.dataset.examples if self.config.limit is None else self.dataset.examples[: self.config.limit]

    def check(self) -> None:
        """Refuses, before anything is encoded, what would be refused when a question's turn comes.

        Raises:
            MissingImage, BrokenImage: a picture is, and ``on_missing`` is ``"error"``.
        """
        if not self.sees or self.config.on_missing != "error":
            return
        with self.timings.of("check pictures"):
            for example in self.examples:
                require(self.dataset.images, example.images, f"question {example.question_id!r}")
            for path in dict.fromkeys(path for example in self.examples for path in example.images):
                pictures(self.dataset.images, [path])

    def queries(self, examples: Sequence[Example]) -> tuple[list[Example], list[NDArray[np.float32]]]:
        """The examples that are not left out, and the rows of each, ``[Lq, dim]``."""
        kept: list[Example] = []
        shown: list[Any] = []
        with self.timings.of("read pictures"):
            for example in examples:
                given = self._pictures(example) if self.sees else None
                if given is not None or not self.sees:
                    kept.append(example)
                    shown.append(given)
        blind = {i for i, given in enumerate(shown) if not given and self.without_image == "text"}
        queries: list[Any] = [None] * len(kept)
        for numbers in (sorted(blind), [i for i in range(len(kept)) if i not in blind]):
            if numbers:
                images = None if numbers[0] in blind else [shown[i] or None for i in numbers]
                for i, rows in zip(numbers, self._encoded([kept[i] for i in numbers], images), strict=True):
                    queries[i] = rows
        return kept, queries

    def _pictures(self, example: Example) -> list[Any] | None:
        """Paths, or pictures where some may be missing; None: leave the question out."""
        if self.config.on_missing == "error":
            require(self.dataset.images, example.images, f"question {example.question_id!r}")
            return list(example.images)
        found, absent = pictures(self.dataset.images, example.images, self.config.on_missing)
        self.missing += absent
        return found

    def _encoded(self, examples: Sequence[Example], images: list[Any] | None) -> list[NDArray[np.float32]]:
        instruction, separator = self.instruction, self.reading.separator
        texts = [
            join(example.instruction if instruction is None else instruction, example.question, separator)
            for example in examples
        ]
        with self.timings.of("encode questions"):
            return encode.encode_queries(
                self.model, texts, images, progress=False, image_source=self.dataset.images, **self.config.encoding
            )
