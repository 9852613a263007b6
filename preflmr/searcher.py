"""A collection that can be asked: passages, their index, and the model that made it and reads the questions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateint import Index
from lateint.arguments import positive_or_none
from lateint.version import __version__
from preflmr.data.images import Images
from preflmr.data.passages import Passages, copy
from preflmr.encode import encode_documents, encode_queries
from preflmr.instructions import TEMPLATES, join
from preflmr.weights.fingerprint import fingerprint

ABOUT, INDEX = "preflmr.json", "index"
FORMAT, VERSION = "preflmr-collection", 1


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
        nbits: int = 4,
        seed: int = 0,
        overwrite: bool = False,
        batch_size: int = 64,
        dtype: Any = None,
        device: Any = None,
        processes: int = 1,
        threads: int | None = None,
        progress: bool = True,
    ) -> Searcher:
        """Encodes the passages of a file and indexes them into a new folder.

        Args:
            source: see `preflmr.data.passages.copy`, also for ``images`` and ``on_missing``.
            checkpoint: what to call the model; None: the name it was loaded by.
            nbits, seed, threads: see `lateint.Index.build`.
            overwrite: replace a collection that is already in ``folder``.
            batch_size, dtype, device, processes: see `preflmr.encode.encode_documents`.

        Raises:
            FileExistsError: there is something in ``folder``.
            FileNotFoundError, ValueError: as `preflmr.data.passages.copy`. Nothing is left half-written.
        """
        target = Path(folder).absolute()
        check_free(target, overwrite)
        work = target.with_name(f".{target.name}.{os.getpid()}")
        work.mkdir(parents=True)
        try:
            said = copy(source, work, images=images, on_missing=on_missing, progress=progress)
            passages = Passages.open(work)
            tokens = encode_documents(
                model,
                passages.texts,
                passages.images if said["with_picture"] else None,
                batch_size=batch_size,
                dtype=dtype,
                device=device,
                progress=progress,
                processes=processes,
                image_source=images,
            )
            Index.build(tokens, work / INDEX, nbits=nbits, seed=seed, threads=threads, progress=progress)
            about = {
                "format": FORMAT,
                "version": VERSION,
                "written_by": __version__,
                "checkpoint": checkpoint or model.name_or_path or type(model).__name__,
                "fingerprint": fingerprint(model),
                "passages": said,
                "index": {"nbits": nbits, "seed": seed, "dtype": "float32" if dtype is None else str(dtype)},
            }
            (work / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            if overwrite and target.exists():
                shutil.rmtree(target)
            work.rename(target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        return cls.open(target, model)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], model: Any) -> Searcher:
        """Opens what `build` wrote.

        Raises:
            FileNotFoundError: there is no collection.
            ValueError: another model made it, or it is damaged or of a newer format.
        """
        folder = Path(folder)
        about = read_about(folder)
        if about["fingerprint"] != fingerprint(model):
            raise ValueError(
                f"{folder} was indexed with another model, {about['checkpoint']}, than "
                f"{model.name_or_path or type(model).__name__}: their weights differ, so scores would mean nothing"
            )
        passages, index = Passages.open(folder), Index.open(folder / INDEX)
        if len(passages) != len(index) or len(passages) != about["passages"]["count"]:
            raise ValueError(
                f"{folder}: passages and index must be of one run, found {len(passages):,} passages and "
                f"{len(index):,} documents; index the passages again"
            )
        return cls(model, passages, index, about)

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
        config = self.model.config
        sees = config.use_vision_encoder and config.query_concat_output_from_vision_encoder
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
        passage = self.passages[position]
        return Found(passage.id, score, passage.text, passage.image)


def query_text(model: Any, question: str, instruction: str | None, picture: bool) -> str:
    """Instruction and question joined as the model was trained to read them."""
    if instruction is None:
        instruction = default_instruction(question, picture)
    return join(instruction, question, model.config.mask_instruction_token)


def default_instruction(question: str, picture: bool) -> str:
    """The first template of a task with such queries: EVQA's, WIT's for a picture alone, MSMARCO's for words alone."""
    return TEMPLATES["MSMARCO" if not picture else "EVQA" if question.strip() else "WIT"][0]


def read_about(folder: Path) -> dict[str, Any]:
    """What made a collection.

    Raises:
        FileNotFoundError: there is none in ``folder``.
        ValueError: it is damaged, or of a newer format.
    """
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} is no collection: it has no {ABOUT}; `preflmr index` makes one") from None
    except ValueError as error:
        raise ValueError(f"{folder / ABOUT}: not readable: {error}") from None
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        found = f"{about.get('format')} {about.get('version')}"
        raise ValueError(f"{folder / ABOUT}: must be {FORMAT} {VERSION}, found {found}")
    return about


def check_free(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Whether a collection may be written to ``folder``.

    Raises:
        FileExistsError: there is something else, or another collection and it is not to be overwritten.
    """
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / ABOUT).is_file():
        raise FileExistsError(f"{folder} exists and is no collection; choose a new folder")
    if not overwrite:
        about = read_about(folder)
        raise FileExistsError(
            f"{folder} exists: {about['passages']['count']:,} passages of {about['passages']['source']}, indexed with "
            f"{about['checkpoint']}; give --overwrite to replace it"
        )
