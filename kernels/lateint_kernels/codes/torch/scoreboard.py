"""Coarse scores by sorting: the entries of the probed lists, by query and document.

How many entries and documents there are is asked of the device, several times: a GPU has a kernel for this instead
(`lateint_kernels.codes.cuda.scoreboard`), which waits for nothing.
"""

import torch
from torch import Tensor

from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors

LOW = (1 << 32) - 1


def best_keys(
    index: IndexTensors, queries: QueryTensors, ids: Tensor, gains: Tensor, candidates: int, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The best documents of each query by ``sum_i max { gains[i, l] : list l of token i holds d }``, ties by position.

    Args:
        ids: ``[T, used]`` int64, the centroids whose lists are read, best first; K stands for none.
        gains: ``[T, used]`` int64, not rising within a row; the sum of a query is below 2^31.
        candidates: how many are wanted.
        allowed: ``[n]`` bool, or None for all.

    Returns:
        keys ``[Nq, C]`` int64, ``(sum << 32) + LOW - position``, largest first, -1 after the last one, C at most
        ``candidates``; how many entries were read, and how many documents they name, allowed or not, ``[]`` int64.
    """
    ids = ids[:, :, None]
    first = index.list_offsets.T[ids].squeeze(2)  # [T, used, segments]
    sizes = index.list_offsets.T[ids + 1].squeeze(2) - first
    lists = torch.repeat_interleave(torch.arange(sizes.numel(), device=sizes.device), sizes.flatten())
    entry = torch.arange(len(lists), device=lists.device) + (first.flatten() - _starts(sizes.flatten()))[lists]
    # By query and document; stable, so that the entries of a document stay by token and, within it, best first.
    token = lists // (sizes.shape[1] * sizes.shape[2])
    key = owners(queries)[token] * index.documents + index.list_documents[entry]
    key, order = key.sort(stable=True)
    token = token[order]
    new = _changes(key)
    gain = gains.flatten()[lists[order] // sizes.shape[2]] * (new | _changes(token))
    found = key[new]
    total = gain.cumsum(0)
    ends = torch.cat([new.nonzero()[1:, 0], new.new_full((1,), len(new), dtype=torch.int64)])[: len(found)]
    sums = torch.diff(total[ends - 1], prepend=total.new_zeros(1))[: len(found)]
    query, position = found // index.documents, found % index.documents
    postings, touched = torch.tensor(len(lists)), torch.tensor(len(found))
    if allowed is not None:
        kept = allowed[position]
        query, position, sums = query[kept], position[kept], sums[kept]
    keys = _best_of_each(query, (sums << 32) + LOW - position, len(queries.constants), candidates)
    return keys, postings, touched


def owners(queries: QueryTensors) -> Tensor:
    """``[T]``: which query a token is of."""
    token = torch.arange(len(queries.scales), device=queries.scales.device)
    return torch.searchsorted(queries.offsets, token, right=True) - 1


def _best_of_each(query: Tensor, keys: Tensor, Nq: int, count: int) -> Tensor:
    """The largest ``count`` keys of each query, ``[Nq, C]``, largest first and then -1; C is as small as it can be."""
    keys, order = keys.sort(descending=True)
    query, order = query[order].sort(stable=True)
    keys = keys[order]
    sizes = torch.bincount(query, minlength=Nq)
    place = torch.arange(len(keys), device=keys.device) - _starts(sizes)[query]
    kept = place < count
    out = keys.new_full((Nq, min(count, int(sizes.max()))), -1)
    out[query[kept], place[kept]] = keys[kept]
    return out


def _starts(sizes: Tensor) -> Tensor:
    return sizes.cumsum(0) - sizes


def _changes(values: Tensor) -> Tensor:
    """Where a number differs from the one before it."""
    return torch.cat([values.new_ones(min(1, len(values)), dtype=torch.bool), values[1:] != values[:-1]])
