"""Contrastive batches of thousands in bounded memory: GradCache (Gao et al. 2021, arXiv 2101.06983).

The loss of a batch needs all embeddings at once, but not what the encoder computed on the way to them. So the batch is
encoded chunk by chunk, keeping the embeddings alone; the loss and its gradients to the embeddings follow; then each
chunk is encoded once more, from the same random state so that dropout agrees, and its share of those gradients goes on
to the parameters. What that keeps in memory at a time: all embeddings and their gradients, the scores and `maxsim`'s
positions of the maxima (no token similarities), and what the encoder computes for one chunk. It costs encoding twice.

That is activation checkpointing with a chunk of the batch for a segment, which is how it is done here. Autograd takes
the last chunk first and finishes it before it recomputes the next. The parameters' gradients are complete only after
the last of them, so ``loss.backward()``, gradient scaling, DistributedDataParallel and FSDP work as ever. Apart from
random numbers of torch, the encoder must compute the same when called again; running statistics (batch normalisation)
are updated twice.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from lateint_kernels import losses
from lateint_kernels.distributed import gather_documents, gather_rows, global_mean
from lateint_kernels.maxsim import maxsim

Encode = Callable[[Any], Tensor | tuple[Tensor, Tensor]]


def cached_contrastive(
    encode_queries: Encode,
    queries: Any,
    encode_documents: Encode,
    documents: Any,
    *,
    chunk_size: int,
    score_chunk_size: int | None = None,
    positives: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    document_ids: Tensor | None = None,
    document_corpora: Tensor | None = None,
    symmetric: bool = False,
    normalize: bool = False,
    group: Any = None,
) -> Tensor:
    """`losses.contrastive` of a batch that is encoded in chunks, on any number of ranks: the same loss and gradients.

    On several ranks the documents of all are negatives, and the loss is the one that averaging of gradients (as
    DistributedDataParallel and FSDP do) turns into the gradient of the mean over all queries: see
    `lateint_kernels.distributed`. Its mean over ranks is the loss. Encoders that communicate in their forward pass
    (FSDP, or DDP with buffers) need equally many chunks on every rank.

    Args:
        encode_queries: from a chunk of ``queries`` to its embeddings ``[n, Lq, dim]``, or those and a mask ``[n, Lq]``;
            lengths may differ between chunks.
        queries: this rank's, as a tensor, list, or mapping of such (what a tokenizer returns), sliced for chunks.
        encode_documents: likewise for documents; may be the same function.
        documents: this rank's, likewise; hard negatives are simply more of them.
        chunk_size: how many to encode at a time.
        score_chunk_size: how many queries to score at a time, computing the scores twice as well: without it
            ``Nq * Lq * Nd`` positions of 1 or 2 bytes are kept.
        positives: ``[Nq]`` int64, which of this rank's documents is each query's positive; None for document i.
        temperature: as for `losses.contrastive`.
        document_ids: ``[Nd]`` integers of this rank's documents, the same on all ranks for the same document; as for
            `losses.contrastive`.
        document_corpora: likewise.
        symmetric: as for `losses.contrastive`; every rank then holds the scores of all.
        normalize: as for `maxsim`.
        group: the process group; None for all ranks.

    Returns:
        A scalar to call ``backward()`` on.

    Raises:
        TypeError, ValueError: as for `losses.contrastive` and `maxsim`; a chunk size is not positive, or the values of
            a mapping differ in length.
    """
    query_tokens, query_mask = encode_in_chunks(encode_queries, queries, chunk_size=chunk_size)
    everyone = gather_documents(*encode_in_chunks(encode_documents, documents, chunk_size=chunk_size), group=group)

    def score(part: slice) -> Tensor:
        mask = None if query_mask is None else query_mask[part]
        return maxsim(
            query_tokens[part],
            everyone.documents,
            query_mask=mask,
            document_mask=everyone.mask,
            normalize=normalize,
        )

    if score_chunk_size is None:
        scores = score(slice(None))
    else:
        scores = torch.cat([_recomputed(score, part) for part in _slices(len(query_tokens), score_chunk_size)])
    if positives is None:
        positives = torch.arange(len(scores))
    positives = positives.to(scores.device) + everyone.start
    ids, corpora = (
        x if x is None else gather_rows(x.to(scores.device), group=group) for x in (document_ids, document_corpora)
    )
    if symmetric:
        scores, positives = gather_rows(scores, group=group), gather_rows(positives, group=group)
    found = losses.contrastive(
        scores,
        positives,
        temperature=temperature,
        document_ids=ids,
        document_corpora=corpora,
        symmetric=symmetric,
        reduction="none",
    )
    return found.mean() if symmetric else global_mean(found, group=group)


def encode_in_chunks(encode: Encode, inputs: Any, *, chunk_size: int) -> tuple[Tensor, Tensor | None]:
    """The embeddings of all ``inputs``, in the memory that encoding one chunk takes; for a loss of one's own.

    Args:
        encode: from a chunk of inputs to its embeddings ``[n, L, dim]``, or those and a mask ``[n, L]``.
        inputs: a tensor, list, or mapping of such.
        chunk_size: how many to encode at a time.

    Returns:
        ``[N, L, dim]`` and, if ``encode`` returned one or lengths differ between chunks, a mask ``[N, L]`` bool. Their
        gradients, if any are wanted, encode each chunk again.

    Raises:
        ValueError: chunk_size is not positive, or the values of a mapping differ in length.

    >>> tokens, mask = encode_in_chunks(lambda x: x[:, None], torch.zeros(5, 3), chunk_size=2)
    >>> tokens.shape, mask
    (torch.Size([5, 1, 3]), None)
    """
    chunks = [_recomputed(encode, _sliced(inputs, part)) for part in _slices(_length(inputs), chunk_size)]
    pairs = [chunk if isinstance(chunk, tuple) else (chunk, None) for chunk in chunks]
    longest = max(tokens.shape[1] for tokens, _ in pairs)
    if any(mask is not None or tokens.shape[1] < longest for tokens, mask in pairs):
        masks = [tokens.new_ones(tokens.shape[:2]) if mask is None else mask for tokens, mask in pairs]
        mask = torch.cat([functional.pad(mask != 0, (0, longest - mask.shape[1])) for mask in masks])
    else:
        mask = None
    return torch.cat([functional.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens, _ in pairs]), mask


def _recomputed(function: Callable[[Any], Any], argument: Any) -> Any:
    # Random states are kept of the devices of arguments; a tensor on the GPU keeps that one's for inputs that are not.
    marker = torch.empty(0, device="cuda") if torch.cuda.is_initialized() else None
    return checkpoint(lambda argument, _: function(argument), argument, marker, use_reentrant=False)


def _slices(n: int, size: int) -> list[slice]:
    if size < 1:
        raise ValueError(f"chunk sizes must be at least 1, got {size}")
    return [slice(first, first + size) for first in range(0, max(n, 1), size)]


def _length(inputs: Any) -> int:
    if not isinstance(inputs, Mapping):
        return len(inputs)
    lengths = {name: len(values) for name, values in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"inputs must be equally many, got {lengths}")
    return next(iter(lengths.values()))


def _sliced(inputs: Any, part: slice) -> Any:
    return {name: values[part] for name, values in inputs.items()} if isinstance(inputs, Mapping) else inputs[part]
