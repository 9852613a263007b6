"""Training batches: what is drawn for each query, and how it becomes tensors.

Everything random about a query (instruction, positive, negatives, augmentation) is a function of (seed, epoch, index),
and the order of an epoch one of (seed, epoch). So batch number n of a device is the same whenever it is asked for, by
whichever worker: to go on after a kill, a counter is enough; and two devices with half the batch draw what one draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from preflmr import instructions
from preflmr.images import Images, blank, pictures
from preflmr.m2kr import Dataset, Example, load
from preflmr.mining import Mined, read_mined
from preflmr.recipe import Data, Source

ORDER, DRAW, REDRAW = 1, 2, 3  # what random numbers are for


@dataclass
class Batch:
    """What a device encodes at a time: Nq queries, and the documents of each: its positive, then its negatives.

    Attributes:
        queries: ``input_ids`` and ``attention_mask`` ``[Nq, Lq]``; if any query has pictures ``pixel_values``
            ``[Nq, R, 3, H, W]``, and ``pictures`` ``[Nq]``, how many of R each query has.
        documents: likewise; or their ``texts``, where documents are cached.
        positives: ``[Nq]`` int64, the number of each query's positive among this batch's documents.
        document_ids, document_corpora: ``[Nd]`` int64, alike on all devices.
        known_positives: ``[Nq, P]`` int64, ids of all passages that answer a query; -1 where there are fewer.
        teacher_scores: ``[Nq, 1 + K]`` of each query's own documents, -inf where the file of negatives had none.
        skipped: how many rows were passed over because of a missing or broken picture.
    """

    queries: dict[str, Any]
    documents: dict[str, Any]
    positives: Tensor
    document_ids: Tensor
    document_corpora: Tensor
    known_positives: Tensor
    teacher_scores: Tensor | None = None
    skipped: int = 0

    def to(self, device: Any) -> Batch:
        """The same on a device."""
        moved = {item.name: _to(getattr(self, item.name), device) for item in fields(self)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Drawn:
    """One query of a batch with its documents, as text and paths; ``scores`` are the teacher's."""

    text: str
    images: list[Any]  # PIL
    positive: int
    negatives: list[int]
    scores: list[float]
    example: Example
    dataset: Dataset


class Batches:
    """Batch number n of one device, ``batches[n]``, for any n: epochs follow each other without end.

    Args:
        data: the recipe's.
        datasets: by the names of ``data.mix``; see `load_mix`.
        model: for its tokenizers, image processor and config.
        batch_size: queries of a batch.
        seed: of everything random.
        rank, devices: this device's number, and how many there are.
        vision: whether queries have pictures.

    Raises:
        ValueError: a question has no positive to train on, or a corpus has too few passages to draw negatives from.
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
        self.mined = [read_mined(source.negatives) if source.negatives else {} for source in self.sources]
        for name, dataset in zip(self.names, self.datasets, strict=True):
            _check(name, dataset, data.negatives)
        self.corpora = {corpus: i for i, corpus in enumerate(sorted({one.task.name for one in self.datasets}))}
        self.vision = vision and bool(model.config.use_vision_encoder)
        self.collator = Collator(data, model)
        self.separator = model.config.mask_instruction_token
        self.augment = augmentation(data.augment)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def epoch_size(self) -> int:
        """Queries of an epoch."""
        return sum(source.size or len(one) for source, one in zip(self.sources, self.datasets, strict=True))

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
            sampler=range(start, stop),  # type: ignore[arg-type]  # any sized iterable will do
            num_workers=self.data.workers,
            persistent_workers=False,
        )

    def order(self, epoch: int) -> NDArray[np.int64]:
        """``[n, 2]``: data set and row of each query of an epoch, all shuffled together."""
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((ORDER, self.seed, epoch))
            rows = [_rows(len(one), source.size, rng) for source, one in zip(self.sources, self.datasets, strict=True)]
            pairs = np.concatenate([np.stack([np.full_like(some, i), some], 1) for i, some in enumerate(rows)])
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
        opened, _ = pictures(dataset.images, example.images if self.vision else (), self.data.on_missing)
        if opened is None:
            return None
        if not opened and self.vision and self.data.without_image == "blank":
            opened = [blank()]
        elif opened and self.augment is not None:
            opened = _augmented(self.augment, opened, rng)
        instruction = _instruction(self.data, source, example, rng)
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


class Collator:
    """Tensors of what was drawn."""

    def __init__(self, data: Data, model: Any) -> None:
        self.data = data
        self.query_tokenizer, self.document_tokenizer = model.query_tokenizer, model.document_tokenizer
        for name in ("query_tokenizer", "document_tokenizer"):
            if getattr(self, name) is None:
                raise ValueError(f"model must have a {name} to be trained, got none")
        self.image_processor = model.image_processor if model.config.use_vision_encoder else None
        self.sees_documents = bool(model.config.context_concat_output_from_vision_encoder)
        self.teacher = any(source.negatives for source in data.mix.values())

    def __call__(self, drawn: Sequence[Drawn], corpora: Mapping[str, int]) -> Batch:
        width = 1 + self.data.negatives
        passages = [(one.dataset, position) for one in drawn for position in (one.positive, *one.negatives)]
        queries = self.query_tokenizer([one.text for one in drawn])
        known = [
            [_passage_id(one.dataset, id) for id in one.example.positive_ids if id in one.dataset.passages.positions]
            for one in drawn
        ]
        return Batch(
            queries={**queries, **self._pixels([one.images for one in drawn])},
            documents=self._documents(passages),
            positives=torch.arange(len(drawn)) * width,
            document_ids=torch.tensor([_passage_id(one, one.passages.ids[position]) for one, position in passages]),
            document_corpora=torch.tensor([corpora[one.task.name] for one, _ in passages]),
            known_positives=torch.tensor(_padded(known)),
            teacher_scores=torch.tensor([one.scores for one in drawn]) if self.teacher else None,
        )

    def _documents(self, passages: list[tuple[Dataset, int]]) -> dict[str, Any]:
        texts = [dataset.passages.texts[position] for dataset, position in passages]
        if self.data.cache_documents:
            return {"texts": texts}
        documents = self.tokenize_documents(texts)
        if self.sees_documents:
            documents |= self._pixels([self._document_pictures(*passage) for passage in passages])
        return documents

    def tokenize_documents(self, texts: list[str]) -> dict[str, Any]:
        """``input_ids`` and ``attention_mask``, as long as the longest of these."""
        return dict(self.document_tokenizer(texts, padding="longest"))

    def _document_pictures(self, dataset: Dataset, position: int) -> list[Any]:
        path = dataset.passages.images[position] if dataset.passages.images else None
        if path is None:
            return []
        # A passage cannot be passed over: it is the positive of a query.
        on_missing = "error" if self.data.on_missing == "error" else "blank"
        return pictures(dataset.images, [path], on_missing)[0] or []

    def _pixels(self, images: list[list[Any]]) -> dict[str, Tensor]:
        counts = [len(some) for some in images]
        if self.image_processor is None or not any(counts):
            return {}
        pixels = self.image_processor([one for some in images for one in some])  # [sum of counts, 3, H, W]
        padded = pixels.new_zeros(len(images), max(counts), *pixels.shape[1:])
        for row, some in zip(padded, pixels.split(counts), strict=True):
            row[: len(some)] = some
        return {"pixel_values": padded, "pictures": torch.tensor(counts)}


def load_mix(data: Data, seed: int = 0) -> dict[str, Dataset]:
    """The data sets of ``data.mix`` by name; passages of one place are held once."""
    read: dict[tuple[Any, ...], Dataset] = {}
    found: dict[str, Dataset] = {}
    for name, source in data.mix.items():
        place = (source.source or data.source, source.task, source.split)
        dataset = load(
            *place,
            images=_images(source.images or data.images),
            passages=read[place].passages if place in read else None,
            limit=source.questions,
            seed=seed,
            strict=data.strict,
        )
        found[name] = read[place] = dataset
    return found


def draw_negatives(
    dataset: Dataset, example: Example, mined: Mined, n: int, hard: int, rng: np.random.Generator
) -> tuple[list[int], list[float]]:
    """``n`` passages of the data set's corpus that are no positives of the question, by position, and their scores.

    ``hard`` of them, or as many as there are, come from the file of mined negatives; the others are drawn from all
    passages alike, and have score -inf.
    """
    passages = dataset.passages
    taken = {passages.positions[id] for id in example.positive_ids if id in passages.positions}
    candidates = [id for id in mined.negatives if passages.positions.get(id, -1) not in taken | {-1}]
    chosen = rng.permutation(len(candidates))[:hard]
    negatives = [passages.position(candidates[i]) for i in chosen]
    scores = [mined.negatives[candidates[i]] for i in chosen]
    taken.update(negatives)
    while len(negatives) < n:
        position = int(rng.integers(len(passages)))
        if position not in taken:
            taken.add(position)
            negatives.append(position)
            scores.append(float("-inf"))
    return negatives, scores


def augmentation(transforms: Sequence[Mapping[str, Any]]) -> Any:
    """One function of pictures from names of `torchvision.transforms.v2` with arguments; None from none.

    Raises:
        ValueError: there is no transform of a name, or it refuses its arguments.
    """
    if not transforms:
        return None
    from torchvision.transforms import v2

    made = []
    for transform in transforms:
        ((name, arguments),) = transform.items()
        kind = getattr(v2, name, None)
        if not (isinstance(kind, type) and issubclass(kind, v2.Transform)):
            raise ValueError(f"data.augment must name transforms of torchvision.transforms.v2, got {name!r}")
        try:
            made.append(kind(**(arguments or {})))
        except TypeError as error:
            raise ValueError(f"data.augment: {name} refuses its arguments: {error}") from None
    return v2.Compose(made)


class _Lookup(torch.utils.data.Dataset[Batch]):
    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> Batch:
        return self.batches[number]


def _rows(n: int, size: int | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """``size`` rows of n: all of them as often as they fit, and a random choice for the rest."""
    copies, rest = divmod(n if size is None else size, n)
    return np.concatenate([np.tile(np.arange(n), copies), rng.permutation(n)[:rest]])


def _check(name: str, dataset: Dataset, negatives: int) -> None:
    most = 0
    for example in dataset.examples:
        if not example.positive_ids:
            raise ValueError(f"{name}: question {example.question_id!r} has no pos_item_ids, which training needs")
        most = max(most, len(example.positive_ids))
    if len(dataset.passages) < most + negatives:
        found = f"{len(dataset.passages)} passages, of which {most} may be positives"
        raise ValueError(f"{name}: data.negatives must leave passages to draw {negatives} from, got {found}")


def _instruction(data: Data, source: Source, example: Example, rng: np.random.Generator) -> str | None:
    if source.instructions == "none" or not data.use_instructions:
        return None
    return example.instruction if source.instructions == "row" else instructions.choose(source.instructions, rng)


def _augmented(augment: Any, opened: list[Any], rng: np.random.Generator) -> list[Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        return [augment(picture) for picture in opened]


def _passage_id(dataset: Dataset, id: str) -> int:
    """A number for the passage, the same in every process."""
    digest = blake2b(f"{dataset.task.name}\0{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _padded(rows: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [-1] * (longest - len(row)) for row in rows]


def _images(root: str | None) -> Images | None:
    return None if root is None else Images(root)


def _to(value: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return {key: _to(one, device) for key, one in value.items()} if isinstance(value, dict) else value


def iterate(batches: Batches, start: int, stop: int) -> Iterator[Batch]:
    """Batches ``start`` to ``stop - 1``; without workers, without a loader."""
    return iter(batches.loader(start, stop)) if batches.data.workers else (batches[n] for n in range(start, stop))
