"""lateint in the place of other packages of kernels, whose tests then run on a CPU.

Their conventions are not imitated: arguments are passed on, and nothing more. Where a test then fails, `conventions`
says which one differs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import lateint_kernels
from lateint_kernels import RaggedTensor


class OnTheCpu(TorchFunctionMode):
    """What is asked to be on a GPU is on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.cuda:
            return args[0]
        if func is torch.allclose:  # which refuses numbers of two types, on any device
            args = (*(x.float() for x in args[:2]), *args[2:])
        kwargs = {name: _host(value) for name, value in (kwargs or {}).items()}
        return func(*map(_host, args), **kwargs)


class HostGenerator(torch.Generator):
    """Likewise of random numbers."""

    def __new__(cls, device: Any = None) -> HostGenerator:
        return super().__new__(cls)


def _host(value: Any) -> Any:
    return "cpu" if isinstance(value, str | torch.device) and str(value).startswith("cuda") else value


def install(name: str) -> None:
    """Puts lateint in the place of a package's operators, and the CPU in that of a GPU, until the process ends."""
    for place, function in PACKAGES[name].items():
        module, attribute = place.rsplit(".", 1)
        setattr(import_module(module), attribute, function)
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    torch.cuda.synchronize = torch.cuda.empty_cache = lambda device=None: None
    torch.Generator = HostGenerator
    OnTheCpu().__enter__()


def packed(tokens: Tensor, offsets: Tensor) -> RaggedTensor:
    """Matrices end to end, empty ones too."""
    offsets = offsets.long()
    return RaggedTensor(tokens.contiguous(), offsets, int(offsets.diff().max()) if len(offsets) > 1 else 0)


def up_to(lengths: Tensor | None, length: int) -> Tensor | None:
    """A mask of the first tokens."""
    return None if lengths is None else torch.arange(length) < lengths[..., None]


def squeezed(scores: Tensor, queries: Tensor, documents: Tensor) -> Tensor:
    """Without the dimensions that were not given: ``[dim]`` of one query or document was missing."""
    scores = scores.squeeze(-1) if documents.ndim == 2 else scores
    return scores.squeeze(0) if queries.ndim == 2 else scores


def lik_maxsim(
    Q: Tensor,
    D: Tensor,
    q_mask: Tensor | None = None,
    d_mask: Tensor | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
) -> Tensor:
    """`late_interaction_kernels.maxsim`."""
    queries, documents = (x[None] if x.ndim == 2 else x for x in (Q, D))
    q_mask, d_mask = (x[None] if x is not None and x.ndim == 1 else x for x in (q_mask, d_mask))
    given = {"query_mask": q_mask, "document_mask": d_mask, "normalize": normalize, "check": False}
    return squeezed(lateint_kernels.maxsim(queries, documents, **given), Q, D)


def lik_maxsim_pairs(
    Q: Tensor,
    D: Tensor,
    q_mask: Tensor | None = None,
    d_mask: Tensor | None = None,
    *,
    normalize: bool = False,
    backward: str | None = None,
) -> Tensor:
    """`late_interaction_kernels.maxsim_pairs`."""
    given = {"query_mask": q_mask, "document_mask": d_mask, "normalize": normalize, "check": False}
    found: Tensor = lateint_kernels.maxsim_pairs(Q, D, **given)
    return found


def lik_maxsim_varlen(
    Q_packed: Tensor,
    D_packed: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_d: Tensor,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
) -> Tensor:
    """`late_interaction_kernels.maxsim_varlen`."""
    found: Tensor = lateint_kernels.maxsim(packed(Q_packed, cu_seqlens_q), packed(D_packed, cu_seqlens_d), check=False)
    return found


def lik_score_pairs_packed(
    Q_packed: Tensor,
    D_packed: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_d: Tensor,
    pair_q_idx: Tensor,
    pair_d_idx: Tensor,
    *,
    max_seqlen_q: int | None = None,
    max_seqlen_d: int | None = None,
) -> Tensor:
    """`late_interaction_kernels.score_pairs.score_pairs_packed`."""
    sides = packed(Q_packed, cu_seqlens_q), packed(D_packed, cu_seqlens_d)
    found: Tensor = lateint_kernels.maxsim_pairs(*sides, pair_q_idx, pair_d_idx, check=False)
    return found


def lik_maxsim_padded(
    queries: Tensor, documents: Tensor, query_lengths: Tensor, doc_lengths: Tensor, *, validate: bool = False
) -> Tensor:
    """`late_interaction_kernels.maxsim_padded`."""
    masks = up_to(query_lengths, queries.shape[-2]), up_to(doc_lengths, documents.shape[-2])
    given = {"query_mask": masks[0], "document_mask": masks[1], "check": False}
    found: Tensor = lateint_kernels.maxsim(queries, documents, **given)
    return found


def lik_score(
    Q: Tensor,
    D: Tensor,
    q_mask: Tensor | None,
    d_mask: Tensor | None,
    *,
    normalize: bool,
    backward: str,
    inference: bool,
) -> Tensor:
    """What `late_interaction_kernels.MaxSimScorer` asks for scores."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not inference):
        return lik_maxsim(Q, D, q_mask, d_mask, normalize=normalize)


def lik_retrieve(
    Q: Tensor,
    D: Tensor,
    top_k: int,
    q_mask: Tensor | None = None,
    d_mask: Tensor | None = None,
    *,
    normalize: bool = True,
    chunk: int | None = None,
    largest: bool = True,
    sorted: bool = True,
) -> tuple[Tensor, Tensor]:
    """`late_interaction_kernels.retrieve`."""
    if not largest:
        raise ValueError("largest must be True, since lateint_kernels.retrieve finds the largest scores; got False")
    documents = D[None] if D.ndim == 2 else D
    d_mask = d_mask[None] if d_mask is not None and d_mask.ndim == 1 else d_mask
    given = {"query_mask": q_mask, "document_mask": d_mask, "normalize": normalize, "chunk": chunk, "check": False}
    scores, indices = lateint_kernels.retrieve(Q, documents, top_k, **given)
    return scores, indices


def lik_maxsim_topk(
    Q: Tensor,
    D: Tensor,
    k: int,
    q_mask: Tensor | None = None,
    d_mask: Tensor | None = None,
    *,
    normalize: bool = False,
    chunk_size: int | None = None,
    largest: bool = True,
    sorted: bool = True,
) -> tuple[Tensor, Tensor]:
    """`late_interaction_kernels.topk.maxsim_topk`."""
    return lik_retrieve(Q, D, k, q_mask, d_mask, normalize=normalize, chunk=chunk_size, largest=largest)


def flash_maxsim(
    Q: Tensor,
    D: Tensor,
    doc_lengths: Tensor | None = None,
    query_chunk_size: int | None = 128,
    splitk: bool = False,
) -> Tensor:
    """`flash_maxsim.flash_maxsim`."""
    documents: Any = packed(D, doc_lengths) if D.ndim == 2 and doc_lengths is not None else D
    mask = None if D.ndim == 2 else up_to(doc_lengths, D.shape[-2])
    found: Tensor = lateint_kernels.maxsim(Q, documents, document_mask=mask, check=False)
    return found


def flash_maxsim_batched(
    Q: Tensor,
    D: Tensor,
    doc_lengths: Tensor | None = None,
    shared_docs: bool = True,
    query_lengths: Tensor | None = None,
    pad_lq: bool = True,
    query_chunk_size: int | None = 128,
) -> Tensor:
    """`flash_maxsim.flash_maxsim_batched`."""
    masks = up_to(query_lengths, Q.shape[-2]), up_to(doc_lengths, D.shape[-2])
    given = {"query_mask": masks[0], "document_mask": masks[1], "check": False}
    found: Tensor = lateint_kernels.maxsim(Q, D, **given)
    return found


def flash_maxsim_train(Q: Tensor, D: Tensor) -> Tensor:
    """`flash_maxsim.flash_maxsim_train`."""
    return flash_maxsim(Q, D)


def flash_maxsim_varlen(
    Q_packed: Tensor,
    D_packed: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_d: Tensor,
    max_seqlen_q: int,
    max_seqlen_d: int,
) -> Tensor:
    """`flash_maxsim.flash_maxsim_varlen`."""
    sides = packed(Q_packed, cu_seqlens_q), packed(D_packed, cu_seqlens_d)
    found: Tensor = lateint_kernels.maxsim_pairs(*sides, check=False)
    return found


LIK, FLASH = "late_interaction_kernels", "flash_maxsim"
PACKAGES: dict[str, dict[str, Any]] = {
    LIK: {
        f"{LIK}.maxsim": lik_maxsim,
        f"{LIK}.autograd.maxsim": lik_maxsim,
        f"{LIK}.maxsim_pairs": lik_maxsim_pairs,
        f"{LIK}.autograd.maxsim_pairs": lik_maxsim_pairs,
        f"{LIK}.maxsim_varlen": lik_maxsim_varlen,
        f"{LIK}.varlen.maxsim_varlen": lik_maxsim_varlen,
        f"{LIK}.score_pairs.score_pairs_packed": lik_score_pairs_packed,
        f"{LIK}.maxsim_padded": lik_maxsim_padded,
        f"{LIK}.padded.maxsim_padded": lik_maxsim_padded,
        f"{LIK}.topk.maxsim_topk": lik_maxsim_topk,
        f"{LIK}.retrieve._score": lik_score,
        f"{LIK}.retrieve.retrieve": lik_retrieve,
        f"{LIK}.retrieve": lik_retrieve,
    },
    FLASH: {
        f"{FLASH}.flash_maxsim": flash_maxsim,
        f"{FLASH}.flash_maxsim_batched": flash_maxsim_batched,
        f"{FLASH}.flash_maxsim_train": flash_maxsim_train,
        f"{FLASH}.flash_maxsim_varlen.flash_maxsim_varlen": flash_maxsim_varlen,
        f"{FLASH}.flash_maxsim_varlen": flash_maxsim_varlen,
    },
}
