"""The loss of a batch: encode, score with lateint, compare.

``S(q, d) = sum_i max_j <q_i, d_j>`` of every query with every document, and the loss of `lateint_kernels.losses` on
that. It is a module, so that what accelerate wraps (DistributedDataParallel, autocast) is the whole step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lateint_kernels import losses
from lateint_kernels.distributed import gather_rows, global_mean
from lateint_kernels.gradcache import encode_in_chunks
from preflmr.model.scoring import batch_scores, own_columns, own_scores
from preflmr.retrievers import DOCUMENT, QUERY, Tokens, adapted
from preflmr.training.batches import Batch, Batches, View
from preflmr.training.image_states import ImageStates
from preflmr.training.recipe import QUERY_PARTS, Distillation, TrainConfig

TOGETHER = 16  # documents of about one length that are encoded for the cache: they hold little padding


class Objective(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A model and how it is judged: ``objective(batch)`` is the loss.

    Args:
        model: what is trained.
        config: the recipe.
        batches: where inputs of the model come from that are not cached yet.
        teacher: scores the same batch for distillation; not trained, nor part of this module.
        image_states: where ``data.cache_images`` keeps them; None: for this objective alone.
    """

    def __init__(
        self,
        model: Any,
        config: TrainConfig,
        batches: Batches | None = None,
        teacher: Any = None,
        image_states: ImageStates | None = None,
    ) -> None:
        super().__init__()
        self.retriever = adapted(model)
        self.model, self.config, self.batches = self.retriever.model, config, batches
        self._teacher = (teacher,)  # in a tuple, for a module would become a part of this one
        self._documents: dict[int, Tensor] = {}
        self._images: dict[View, Tensor] = {}
        self._image_states = ImageStates() if image_states is None else image_states
        if config.data.cache_images:
            self._image_states.begin(self.model, config.precision)

    def forward(self, batch: Batch) -> Tensor:
        """The mean over queries. On several devices, with ``loss.across_devices``, the mean over devices of what they
        return is the loss, and averaged gradients are its own: see `lateint_kernels.distributed`."""
        settings = self.config.loss
        inputs = self._with_images(batch.queries) if self.config.data.cache_images else batch.queries
        queries, query_mask = self._encode(self._query, inputs)
        if self.config.data.cache_documents:
            documents, document_mask = self._cached(batch)
        else:
            documents, document_mask = self._encode(self._document, batch.documents)
        each, rows = len(documents) // len(queries), (queries, query_mask, documents, document_mask)
        if not settings.in_batch:
            own = own_scores(*rows, each)
            first = torch.zeros(len(queries), dtype=torch.int64)
            loss = losses.contrastive(own, first, temperature=settings.temperature)
        else:
            scores, start = batch_scores(*rows, across_devices=settings.across_devices)
            positives, ids, corpora = batch.positives + start, batch.document_ids, batch.document_corpora
            if settings.across_devices:
                ids, corpora = gather_rows(ids), gather_rows(corpora)
            own = own_columns(scores, positives, each)
            if settings.mask_positives:
                scores = scores.masked_fill(_other_positives(batch, positives, ids), float("-inf"))
            found = losses.contrastive(
                scores,
                positives,
                temperature=settings.temperature,
                document_corpora=corpora if settings.same_corpus else None,
                reduction="none",
            )
            loss = global_mean(found) if settings.across_devices else found.mean()
        if settings.distillation is None:
            return loss
        weight = settings.distillation.weight
        return (1 - weight) * loss + weight * distillation(own, self._teacher_scores(batch), settings.distillation)

    def _encode(self, encode: Callable[[dict[str, Any]], Tokens], inputs: dict[str, Any]) -> Tokens:
        if self.config.loss.chunk is None:
            return encode(inputs)
        tokens, mask = encode_in_chunks(encode, inputs, chunk_size=self.config.loss.chunk)
        assert mask is not None  # encode returns one
        return tokens, mask

    def _query(self, inputs: dict[str, Any]) -> Tokens:
        chosen = {part: None if part in self.config.query_parts else False for part in QUERY_PARTS}
        return self.retriever.rows(QUERY, inputs, **chosen)

    def _document(self, inputs: dict[str, Any]) -> Tokens:
        return self.retriever.rows(DOCUMENT, inputs)

    def _cached(self, batch: Batch) -> Tokens:
        """Documents out of the cache, which has rows that take part alone; those not yet there are encoded first."""
        ids = batch.document_ids.tolist()
        missing = {
            id: text for id, text in zip(ids, batch.documents["texts"], strict=True) if id not in self._documents
        }
        by_length = sorted(missing, key=lambda id: len(missing[id]))
        for first in range(0, len(by_length), TOGETHER):
            assert self.batches is not None
            some = by_length[first : first + TOGETHER]
            inputs = self.batches.collator.documents([missing[id] for id in some])
            inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
            with torch.no_grad():
                tokens, mask = self._document(inputs)
            for id, rows, kept in zip(some, tokens, mask, strict=True):
                self._documents[id] = rows[kept].cpu()
        rows = [self._documents[id] for id in ids]
        lengths = torch.tensor([len(one) for one in rows])
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.model.device)  # [Nd, longest, dim]
        return padded, (torch.arange(padded.shape[1]) < lengths[:, None]).to(padded.device)

    def _with_images(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Pictures' states in place of their views; those not yet in the cache are encoded first."""
        views: list[list[View]] = inputs["views"]
        rest = {name: value for name, value in inputs.items() if name != "views"}
        missing = list(dict.fromkeys(view for some in views for view in some if view not in self._images))
        if missing:
            assert self.batches is not None
            states = self._image_states.of(self.batches.pixels(missing))
            self._images.update(zip(missing, states, strict=True))
        counts = [len(some) for some in views]
        if not any(counts):
            return rest
        size = next(iter(self._images.values())).shape
        features = torch.zeros(len(views), max(counts), *size)  # [Nq, R, 1 + patches, hidden]
        for row, some in zip(features, views, strict=True):
            for place, view in zip(row, some, strict=False):
                place.copy_(self._images[view])
        device = self.model.device
        return rest | {"image_features": features.to(device), "pictures": torch.tensor(counts, device=device)}

    def _teacher_scores(self, batch: Batch) -> Tensor:
        (teacher,) = self._teacher
        if teacher is None:
            if batch.teacher_scores is None:
                raise ValueError("loss.distillation needs a teacher, or a file of negatives in data.mix, got neither")
            return batch.teacher_scores
        with torch.no_grad():
            taught = adapted(teacher)
            queries, query_mask = taught.rows(QUERY, batch.queries)
            documents, document_mask = taught.rows(DOCUMENT, batch.documents)
            return own_scores(queries, query_mask, documents, document_mask, len(documents) // len(queries))


def distillation(scores: Tensor, teacher: Tensor, settings: Distillation) -> Tensor:
    """The loss between own scores ``[Nq, 1 + K]`` and the teacher's, over queries that the teacher scored.

    A teacher's score of -inf is one that it does not have.
    """
    known = torch.isfinite(teacher[:, 0]) & torch.isfinite(teacher[:, 1:]).any(dim=1)
    if not bool(known.any()):
        return scores.sum() * 0.0
    if settings.loss == "margin_mse":
        return losses.margin_mse(scores[known], teacher[known])
    return losses.kl_divergence(scores[known], teacher[known], temperature=settings.temperature)


def _other_positives(batch: Batch, positives: Tensor, ids: Tensor) -> Tensor:
    """``[Nq, Nd]`` bool: documents that answer the query besides the one drawn as its positive; copies of that, too."""
    others = (ids[None, :, None] == batch.known_positives[:, None, :]).any(dim=2)
    return others.scatter(1, positives[:, None], False)
