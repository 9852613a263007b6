"""Passages that can be asked for: their index, and the model that made it and reads the questions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateint import Index
from lateint.arguments import positive_or_none
from preflmr.data.images import Images
from preflmr.data.passages import Passages, load_passages
from preflmr.encode import encode_queries
from preflmr.indexing.passage_index import PassageIndex, check_free, name_of, read_about
from preflmr.instructions import TEMPLATES, join
from preflmr.retrievers import adapted
from preflmr.weights.fingerprint import fingerprint


@dataclass(frozen=True)
class Found:
    """A passage that a search found."""

    id: str
    score: float
    text: str
    image: str | None = None


class Searcher:
    """Passages and the model that can search them; make one with `build` or `open`."""

    def __init__(self, model: Any, passages: Passages, index: Index, about: dict[str, Any]) -> None:
        self.model, self.passages, self.index, self.about = model, passages, index, about

    @classmethod
    def build(
        cls,
        model: Any,
        source: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        checkpoint: str | None = None,
        images: Images | None = None,
        on_missing: str = "error",
        strict: bool = True,
        nbits: int = 4,
        seed: int = 0,
        threads: int | None = None,
        overwrite: bool = False,
        progress: bool = True,
        **encoding: Any,
    ) -> Searcher:
        """Encodes the passages of a file and indexes them into a new folder, whole or not at all.

        Passages are read and checked before any of them is encoded: the millionth one being empty shows after seconds.

        Args:
            source: see `preflmr.data.passages.load_passages`.
            checkpoint: what to call the model; None: the name it was loaded by.
            images: where pictures of passages are; None: pictures are left out.
            on_missing: what a missing picture does: ``"error"``; ``"skip"`` leaves the passage out, ``"blank"`` keeps
                its text.
            strict: see `preflmr.data.passages.load_passages`.
            nbits, seed, threads: see `lateint.Index.build`.
            overwrite: replace an index of passages that is already in ``folder``.
            encoding: ``batch_size``, ``dtype``, ``device`` and ``processes`` of `preflmr.encode.encode_documents`.

        Raises:
            FileExistsError: there is something in ``folder``.
            FileNotFoundError, MissingImage, ValueError: passages or pictures are missing or wrong.
        """
        check_free(folder, overwrite)
        passages, missing = load_passages(source, strict=strict).without_missing(images, on_missing)
        about = {"source": os.fspath(source), "picture_missing": missing}
        PassageIndex.build(
            model,
            passages,
            folder,
            about=about,
            checkpoint=checkpoint,
            images=images,
            nbits=nbits,
            seed=seed,
            threads=threads,
            overwrite=overwrite,
            progress=progress,
            **encoding,
        )
        return cls.open(folder, model)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Any) -> Searcher:
        """Opens what `build` wrote, or ``preflmr eval --index``.

        Raises:
            FileNotFoundError: there is no index of passages.
            ValueError: another model made it, or it is damaged or of a newer format.
        """
        about = read_about(Path(folder))
        if about["fingerprint"] != fingerprint(adapted(model).model):
            raise ValueError(
                f"{folder} was indexed with another model, {about['checkpoint']}, than {name_of(model)}: "
                "their weights differ, so scores would mean nothing"
            )
        found = PassageIndex.open(folder)
        return cls(model, found.passages, found.index, found.about)

    def search(
        self,
        questions: Sequence[str],
        images: Sequence[Any] | None = None,
        *,
        instructions: str | Sequence[str | None] | None = None,
        k: int = 5,
        nprobe: int | None = None,
        candidates: int | None = None,
        exhaustive: bool = False,
        threads: int | None = None,
        batch_size: int = 64,
        dtype: Any = None,
        processes: int = 1,
        image_source: Images | None = None,
        progress: bool = False,
    ) -> list[list[Found]]:
        """The k best passages for each question.

        Args:
            questions: without instructions; "" asks with the picture alone.
            images: for each question a picture, a list of pictures or None, as in `preflmr.encode.encode_queries`.
            instructions: one for all or one each; None is replaced by the first that PreFLMR was trained with for such
                a query, see `default_instruction`; "" is none.
            k: how many passages.
            nprobe, candidates, exhaustive, threads: see `lateint.Index.search`.
            batch_size, dtype, processes, image_source, progress: see `preflmr.encode.encode_queries`.

        Raises:
            ValueError: there are not as many images or instructions as questions, the model reads no pictures, or
                ``k``, ``nprobe`` or ``candidates`` is below 1.
        """
        for name, value in (("k", k), ("nprobe", nprobe), ("candidates", candidates)):
            positive_or_none(value, name)  # now, not after questions are encoded
        questions = list(questions)
        pictures = [None] * len(questions) if images is None else list(images)
        given = (
            [instructions] * len(questions) if instructions is None or isinstance(instructions, str) else instructions
        )
        for name, some in (("images", pictures), ("instructions", given)):
            if len(some) != len(questions):
                raise ValueError(
                    f"{name} must have one item a question, got {len(some)} for {len(questions)} questions"
                )
        sees = adapted(self.model).reading.query_pictures
        if not sees and any(picture is not None for picture in pictures):
            raise ValueError("images must be left out: this model reads no pictures with questions")
        texts = [
            query_text(self.model, question, instruction, picture is not None)
            for question, instruction, picture in zip(questions, given, pictures, strict=True)
        ]
        queries = encode_queries(
            self.model,
            texts,
            pictures if sees else None,
            batch_size=batch_size,
            dtype=dtype,
            processes=processes,
            progress=progress,
            image_source=image_source,
        )
        hits = self.index.search(
            queries, k, nprobe=nprobe, candidates=candidates, exhaustive=exhaustive, threads=threads
        )
        return [[self._found(position, score) for position, score in one] for one in hits]

    def _found(self, position: int, score: float) -> Found:
        images = self.passages.images
        image = None if images is None else images[position]
        return Found(self.passages.ids[position], score, self.passages.texts[position], image)


def query_text(model: Any, question: str, instruction: str | None, picture: bool) -> str:
    """Instruction and question joined as the model was trained to read them."""
    reading = adapted(model).reading
    if instruction is None:
        instruction = default_instruction(question, picture) if reading.use_instructions else ""
    return join(instruction, question, reading.separator)


def default_instruction(question: str, picture: bool) -> str:
    """The first template of a task with such queries: EVQA's, WIT's for a picture alone, MSMARCO's for words alone."""
    return TEMPLATES["MSMARCO" if not picture else "EVQA" if question.strip() else "WIT"][0]
