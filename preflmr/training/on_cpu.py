"""Training on a CPU: attention, dropout and frozen layers, of which torch's own kernels are slow there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from preflmr.model.packed import PackedLinear

DRAWS = 1 << 16  # of a component that may be dropped: a quarter of what torch's generator draws at a time


class OnCpu(PackedLinear):
    """While it is entered, attention, dropout and frozen layers of tensors on a CPU are computed another way.

    - Attention that has gradients to 16-bit tensors is computed in float32, and its result is rounded to 16 bits. The
      fused kernel and its gradients take longer in bfloat16.
    - Dropout takes four masks from each number that torch's generator draws, so it draws a quarter as many. It drops a
      component with the probability that it is asked for, to within ``1 / DRAWS``.
    - Linear layers without gradients: see `PackedLinear`.

    What else has no gradients is left alone, but for dropout.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if function is functional.dropout:
            return _dropout(*args, **kwargs)
        return super().__torch_function__(function, types, args, kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **settings: Any,
) -> Tensor:
    given = [tensor for tensor in (query, key, value, attn_mask) if tensor is not None]
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16) or not learns:
        attended = functional.scaled_dot_product_attention
        return attended(query, key, value, attn_mask, dropout_p, is_causal, **settings)
    with torch.autocast("cpu", enabled=False):
        query_, key_, value_ = query.float(), key.float(), value.float()
        mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
        if dropout_p and not is_causal and not settings.get("enable_gqa") and _all_attend(mask):
            wide = _with_dropout(query_, key_, value_, mask, dropout_p, settings.get("scale"))
        else:
            wide = functional.scaled_dot_product_attention(query_, key_, value_, mask, dropout_p, is_causal, **settings)
    return wide.to(query.dtype)


def _with_dropout(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float | None
) -> Tensor:
    """What torch computes where there is dropout, for no fused kernel has it on a CPU; with our masks."""
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-2, -1)
    if mask is not None:  # in place: the products are as large as the batch is, and nothing else needs them
        scores = scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)
    return _dropout(scores.softmax(-1), dropout, True) @ value


def _all_attend(mask: Tensor | None) -> bool:
    """Whether each row has something to attend to; torch gives the others zeros."""
    if mask is None:
        return True
    return bool((mask if mask.dtype == torch.bool else mask > -torch.inf).any(-1).all())


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if input.device.type != "cpu" or not training or inplace or not 0 < p < 1:
        return functional.dropout(input, p, training, inplace)
    dropped = min(DRAWS - 1, max(1, round(p * DRAWS)))
    drawn = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    kept = drawn.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - DRAWS // 2
    return input * kept.to(input.dtype).mul_(DRAWS / (DRAWS - dropped))
