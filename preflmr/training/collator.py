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
from preflmr.retrievers import DOCUMENT, QUERY, adapted
from preflmr.training.drawing import Drawn
from preflmr.training.recipe import Data


@dataclass
class Batch:
    """What a device encodes at a time: Nq queries, and the documents of each: its positive, then its negatives.

    Attributes:
        queries: inputs of the model, ``[Nq, ...]``, see `Retriever.inputs`; without pictures, and with the ``views`` of
            each, where pictures are cached.
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
        self.data, self.retriever = data, adapted(model)
        for side in (QUERY, DOCUMENT):
            self.retriever.check(side)
        self.sees_documents = self.retriever.reading.document_pictures
        self.teacher = any(source.negatives for source in data.mix.values())

    def __call__(self, drawn: Sequence[Drawn], corpora: Mapping[str, int]) -> Batch:
        width = 1 + self.data.negatives
        passages = [(one.dataset, position) for one in drawn for position in (one.positive, *one.negatives)]
        texts, images = [one.text for one in drawn], [one.images for one in drawn]
        cached = self.data.cache_images
        queries = self._inputs(QUERY, texts, None if cached else images) | ({"views": images} if cached else {})
        known = [
            [_passage_id(one.dataset, id) for id in one.example.positive_ids if id in one.dataset.passages.positions]
            for one in drawn
        ]
        return Batch(
            queries=queries,
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
        seen = [self._document_pictures(*passage) for passage in passages] if self.sees_documents else None
        return self._inputs(DOCUMENT, texts, seen)

    def documents(self, texts: list[str]) -> dict[str, Any]:
        """Inputs of documents without pictures."""
        return self._inputs(DOCUMENT, texts, None)

    def _inputs(self, side: str, texts: list[str], pictures: list[list[Any]] | None) -> dict[str, Any]:
        retriever = self.retriever
        return dict(retriever.inputs(side, retriever.tokenized(side, texts).items, pictures))

    def _document_pictures(self, dataset: Dataset, position: int) -> list[Any]:
        path = dataset.passages.images[position] if dataset.passages.images else None
        if path is None:
            return []
        # A passage cannot be passed over: it is the positive of a query.
        on_missing = "error" if self.data.on_missing == "error" else "blank"
        return pictures(dataset.images, [path], on_missing)[0] or []


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
