"""What was drawn, as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from preflmr.data.images import pictures
from preflmr.data.m2kr import Dataset
from preflmr.training.drawing import Drawn
from preflmr.training.recipe import Data


@dataclass
class Batch:
    """What a device encodes at a time: Nq queries, and the documents of each: its positive, then its negatives.

    Attributes:
        queries: ``input_ids`` and ``attention_mask`` ``[Nq, Lq]``; if any query has pictures ``pixel_values``
            ``[Nq, R, 3, H, W]``, and ``pictures`` ``[Nq]``, how many of R each query has; or the ``views`` of each,
            where pictures are cached.
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
        queries = dict(self.query_tokenizer([one.text for one in drawn]))
        images = [one.images for one in drawn]
        known = [
            [_passage_id(one.dataset, id) for id in one.example.positive_ids if id in one.dataset.passages.positions]
            for one in drawn
        ]
        return Batch(
            queries=queries | ({"views": images} if self.data.cache_images else self._pixels(images)),
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
        filled = pixels.new_zeros(len(images), max(counts), *pixels.shape[1:])
        for row, some in zip(filled, pixels.split(counts), strict=True):
            row[: len(some)] = some
        return {"pixel_values": filled, "pictures": torch.tensor(counts)}


def _passage_id(dataset: Dataset, id: str) -> int:
    """A number for the passage, the same in every process."""
    digest = blake2b(f"{dataset.task.name}\0{id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _padded(rows: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [-1] * (longest - len(row)) for row in rows]


def _to(value: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return {key: _to(one, device) for key, one in value.items()} if isinstance(value, dict) else value
