"""In-batch scores across devices: every rank's documents gathered for every rank's queries, gradients sent back.

Each rank encodes its own queries and documents, and scores its queries with the documents of all ranks::

    everyone = gather_documents(documents, mask)
    scores = maxsim(queries, everyone.documents, document_mask=everyone.mask)  # [Nq of this rank, Nd of all ranks]
    positives = everyone.start + torch.arange(len(queries))
    loss = global_mean(losses.contrastive(scores, positives, reduction="none"))
    loss.backward()

What that computes: let ``L = 1/B sum_i l_i`` be the loss over the B queries of all n ranks, and ``L_r`` what rank r
calls backward on. The gradient of a gathered document is summed over all ranks and goes to the rank that owns it, so
rank r's parameters receive ``g_r = d(sum_s L_s) / d(embeddings of r) * d(embeddings of r) / d(parameters)``, and
``sum_r g_r`` is the gradient of ``sum_s L_s``. DistributedDataParallel and FSDP average: ``1/n sum_r g_r``. It is
therefore the gradient of L, as one process would compute it, if ``sum_s L_s = n L``. Hence

- a rank's own mean is right if and only if all ranks hold equally many queries;
- `global_mean` is right always: ``L_r = n/B sum_{i of r} l_i``;
- where gradients are summed instead of averaged, divide the loss by n;
- a loss of the whole matrix (such as a symmetric one) is right when every rank computes it alike, from the rows of all
  ranks: ``contrastive(gather_rows(scores), positives_of_all, symmetric=True)``. Only scores are sent for it, and each
  rank holds ``B * Nd`` of them.

Without an initialised process group there is one rank, and nothing is sent.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from lateint_kernels.ragged_tensor import RaggedTensor


class Gathered(NamedTuple):
    """The documents of all ranks, by rank.

    Args:
        documents: ``[Nd, Ld, dim]``, with Nd and Ld over all ranks, or packed ones.
        mask: ``[Nd, Ld]`` bool, or ``[T]`` for packed ones, False for absent tokens; None if there are none.
        start: the number of this rank's first document.
    """

    documents: Tensor | RaggedTensor
    mask: Tensor | None
    start: int


def gather_documents(documents: Tensor | RaggedTensor, mask: Tensor | None = None, *, group: Any = None) -> Gathered:
    """The documents of all ranks, whose gradients go back to the rank that owns them.

    Ranks may hold different numbers of documents, of different lengths: shorter ones are padded and masked, packed ones
    stay so. Sizes are exchanged first, so the host waits for the device.

    Args:
        documents: ``[Nd, Ld, dim]`` or a `RaggedTensor`; dim, dtype and kind of device are those of all ranks.
        mask: ``[Nd, Ld]``, or ``[T]`` for packed ones, 0 for absent tokens; None if there are none, whatever other
            ranks say.
        group: the process group; None for all ranks.

    Returns:
        `Gathered`; the summed gradient of a document has its dtype, accumulated in float32 (float64 for float64) in the
        order of ranks, so that it is the same bits every time.

    Raises:
        ValueError: a shape does not match, or dim differs between ranks.
    """
    packed = isinstance(documents, RaggedTensor)
    tokens = documents.tokens if isinstance(documents, RaggedTensor) else documents
    if tokens.ndim != (2 if packed else 3):
        raise ValueError(f"documents must be [Nd, Ld, dim] or packed, got {tuple(tokens.shape)}")
    if mask is not None and mask.shape != tokens.shape[:-1]:
        raise ValueError(f"mask must be {list(tokens.shape[:-1])}, got {tuple(mask.shape)}")
    length, dim = (0 if packed else tokens.shape[1]), tokens.shape[-1]
    sizes = _exchange((len(documents), len(tokens), length, dim, int(mask is not None)), tokens.device, group)
    _check_alike([size[3] for size in sizes], "documents must share dim")
    rows, longest = [size[1] for size in sizes], max(size[2] for size in sizes)
    if any(size[4] or size[2] < longest for size in sizes):
        present = tokens.new_ones(tokens.shape[:-1], dtype=torch.bool) if mask is None else mask != 0
        mask = _gather(functional.pad(present, (0, longest - length)) if longest else present, rows, group)
    everyone = _gather(functional.pad(tokens, (0, 0, 0, longest - length)) if length < longest else tokens, rows, group)
    counts = [size[0] for size in sizes]
    start = sum(counts[: _rank(group)])
    if isinstance(documents, RaggedTensor):
        return Gathered(RaggedTensor.from_lengths(everyone, _gather(documents.lengths, counts, group)), mask, start)
    return Gathered(everyone, mask, start)


def gather_rows(values: Tensor, *, group: Any = None) -> Tensor:
    """The rows of all ranks' ``values``, by rank, whose gradients go back to the rank that owns them.

    For ids, corpora, or rows of scores; ranks may hold different numbers of rows. Waits for the device once.

    Args:
        values: ``[n, ...]`` of any dtype; the shape of a row is that of all ranks.
        group: the process group; None for all ranks.

    Raises:
        ValueError: values are a scalar, or the shape of a row differs between ranks.
    """
    if values.ndim == 0:
        raise ValueError("values must have rows, got a scalar")
    sizes = _exchange(values.shape, values.device, group)
    _check_alike([size[1:] for size in sizes], "values must have rows of one shape")
    return _gather(values, [size[0] for size in sizes], group)


def global_mean(losses: Tensor, *, group: Any = None) -> Tensor:
    """The loss to call backward on, so that averaged gradients are those of the mean over all ranks' queries.

    ``L_r = n / B * sum_i l_i`` over this rank's queries, with n ranks and B queries in all. Its mean over ranks is the
    loss.

    Args:
        losses: ``[Nq]``, one for each query of this rank; may be empty.
        group: the process group; None for all ranks.

    Raises:
        ValueError: losses are not ``[Nq]``, or no rank has any.
    """
    if losses.ndim != 1:
        raise ValueError(f"losses must be [Nq], got {tuple(losses.shape)}")
    counts = [size[0] for size in _exchange(losses.shape, losses.device, group)]
    if sum(counts) == 0:
        raise ValueError("losses must not be empty on every rank")
    return losses.sum() * (len(counts) / sum(counts))


def _active() -> bool:
    return bool(dist.is_available() and dist.is_initialized())


def _rank(group: Any) -> int:
    return int(dist.get_rank(group)) if _active() else 0


def _exchange(sizes: tuple[int, ...], device: torch.device, group: Any) -> list[tuple[int, ...]]:
    """The ``sizes`` of every rank; known to the host, so this waits for the device."""
    if not _active():
        return [tuple(sizes)]
    own = torch.tensor(sizes, device=device)
    everyone = own.new_empty(dist.get_world_size(group), len(sizes))
    dist.all_gather(list(everyone), own, group=group)
    return [tuple(row) for row in everyone.tolist()]


def _check_alike(found: list[Any], rule: str) -> None:
    for rank, one in enumerate(found):
        if one != found[0]:
            raise ValueError(f"{rule} over ranks, got {found[0]} on rank 0 and {one} on rank {rank}")


def _gather(values: Tensor, counts: list[int], group: Any) -> Tensor:
    if not _active():
        return values
    gathered: Tensor = _Gather.apply(values, counts, group)
    return gathered


class _Gather(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """Forward: all ranks' rows, end to end. Backward: what each rank found for our rows, summed."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, counts: list[int], group: Any) -> Tensor:
        ctx.counts, ctx.group = counts, group
        # Equal pieces, for not every communication library gathers others.
        piece = values.new_zeros(max(counts), *values.shape[1:])
        piece[: len(values)] = values
        everyone = values.new_empty(len(counts), *piece.shape)
        dist.all_gather(list(everyone), piece, group=group)
        if min(counts) == max(counts):
            return everyone.flatten(0, 1)
        return torch.cat([rows[:count] for rows, count in zip(everyone, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # Exchanged and then summed here, and not summed on the way: half precision would be rounded at every hop.
        own = ctx.counts[dist.get_rank(ctx.group)]
        found = gradient.new_empty(len(ctx.counts), own, *gradient.shape[1:])
        dist.all_to_all_single(
            found.flatten(0, 1), gradient.contiguous(), [own] * len(ctx.counts), ctx.counts, group=ctx.group
        )
        wide = torch.promote_types(gradient.dtype, torch.float32)
        return found.sum(dim=0, dtype=wide).to(gradient.dtype), None, None
