"""Scores of a batch's queries and documents, and the loss that training minimises."""

import torch
import torch.distributed as dist
from torch import Tensor

from lateint_kernels import distributed, losses, maxsim


def loss_of_own(
    queries: Tensor, query_mask: Tensor, documents: Tensor, mask: Tensor, each: int
) -> tuple[Tensor, Tensor]:
    """Each query has its own documents, the positive first, and no others are negatives.

    Args:
        queries: ``[B, Lq, dim]``, with query_mask ``[B, Lq]``.
        documents: ``[B * each, Ld, dim]``, with mask ``[B * each, Ld]``.
        each: how many documents a query has.

    Returns:
        The mean loss, and scores ``[B, each]``.
    """
    own, own_mask = documents.unflatten(0, (-1, each)), mask.unflatten(0, (-1, each))
    scores = maxsim(queries, own, query_mask=query_mask, document_mask=own_mask, check=False)
    return losses.contrastive(scores, torch.zeros(len(queries), dtype=torch.int64)), scores


def loss_of_batch(
    queries: Tensor, query_mask: Tensor, documents: Tensor, mask: Tensor, each: int, everywhere: bool
) -> tuple[Tensor, Tensor]:
    """All other documents are negatives: those of the batch, or of the batches of all ranks.

    Args:
        queries, query_mask, documents, mask, each: as for `loss_of_own`.
        everywhere: whether to gather the documents of all ranks, which must have equally many.

    Returns:
        The mean loss over the queries of this rank, or of all ranks; and the scores ``[B, each]`` of these queries with
        their own documents. Over all ranks, gradients are those of the loss once they are summed over ranks.
    """
    if everywhere:
        documents, mask, _ = distributed.gather_documents(documents, mask)
    scores = maxsim(queries, documents, query_mask=query_mask, document_mask=mask, check=False)  # [B, documents]
    if everywhere:
        scores = distributed.gather_rows(scores)
    positives = torch.arange(0, len(documents), each, device=scores.device)
    loss = losses.contrastive(scores, positives)
    if everywhere and dist.is_available() and dist.is_initialized():
        # Every rank computes this one loss, and gathering sums the gradients that all of them send back.
        loss = loss.detach() + (loss - loss.detach()) / dist.get_world_size()
    return loss, scores.gather(1, positives[:, None] + torch.arange(each, device=scores.device))
