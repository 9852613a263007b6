"""Scores of a batch's queries and documents, and the loss of the published model."""

import torch
import torch.distributed as dist
from torch import Tensor

from lateint_kernels import distributed, losses, maxsim


def own_scores(queries: Tensor, query_mask: Tensor, documents: Tensor, mask: Tensor, each: int) -> Tensor:
    """The scores of each query with its own documents, ``[B, each]``.

    Args:
        queries: ``[B, Lq, dim]``, with query_mask ``[B, Lq]``.
        documents: ``[B * each, Ld, dim]``, with mask ``[B * each, Ld]``.
        each: how many documents a query has.
    """
    own, own_mask = documents.unflatten(0, (-1, each)), mask.unflatten(0, (-1, each))
    scores: Tensor = maxsim(queries, own, query_mask=query_mask, document_mask=own_mask, check=False)
    return scores


def batch_scores(
    queries: Tensor, query_mask: Tensor, documents: Tensor, mask: Tensor, *, across_devices: bool
) -> tuple[Tensor, int]:
    """The scores of each query with all documents, ``[B, Nd]``, and the number of this rank's first document.

    Args:
        queries, query_mask, documents, mask: as for `own_scores`.
        across_devices: whether documents of all ranks are scored, in the order of ranks.
    """
    start = 0
    if across_devices:
        documents, gathered, start = distributed.gather_documents(documents, mask)
        mask = mask if gathered is None else gathered
    scores: Tensor = maxsim(queries, documents, query_mask=query_mask, document_mask=mask, check=False)
    return scores, start


def own_columns(scores: Tensor, positives: Tensor, each: int) -> Tensor:
    """Of ``[B, Nd]`` those of a query's own documents, ``[B, each]``, which begin with its positive."""
    return scores.gather(1, positives[:, None] + torch.arange(each, device=scores.device))


def loss_of_own(
    queries: Tensor, query_mask: Tensor, documents: Tensor, mask: Tensor, each: int
) -> tuple[Tensor, Tensor]:
    """Each query has its own documents, the positive first, and no others are negatives.

    Args:
        queries, query_mask, documents, mask, each: as for `own_scores`.

    Returns:
        The mean loss, and scores ``[B, each]``.
    """
    scores = own_scores(queries, query_mask, documents, mask, each)
    return losses.contrastive(scores, torch.zeros(len(queries), dtype=torch.int64)), scores


def loss_of_batch(
    queries: Tensor, query_mask: Tensor, documents: Tensor, mask: Tensor, each: int, across_devices: bool
) -> tuple[Tensor, Tensor]:
    """All other documents are negatives: those of the batch, or of the batches of all ranks.

    Args:
        queries, query_mask, documents, mask, each: as for `own_scores`.
        across_devices: whether to gather the queries and documents of all ranks.

    Returns:
        The mean loss over the queries of this rank, or of all ranks; and the scores ``[B, each]`` of these queries with
        their own documents. Over all ranks, gradients are those of the loss once they are summed over ranks.
    """
    scores, _ = batch_scores(queries, query_mask, documents, mask, across_devices=across_devices)
    if across_devices:
        scores = distributed.gather_rows(scores)
    positives = torch.arange(0, scores.shape[1], each, device=scores.device)
    loss = losses.contrastive(scores, positives)
    if across_devices and dist.is_available() and dist.is_initialized():
        # Every rank computes this one loss, and gathering sums the gradients that all of them send back.
        loss = loss.detach() + (loss - loss.detach()) / dist.get_world_size()
    return loss, own_columns(scores, positives, each)
