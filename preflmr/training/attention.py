"""Attention in training on a CPU, where the gradients of torch's fused kernels are slow in 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class WideAttention(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped here
    """While it is entered, attention that has gradients to 16-bit tensors on a CPU is computed in float32.

    Its result is rounded to 16 bits. The fused kernel and its gradients take longer in bfloat16. What has no gradients
    is left alone.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not functional.scaled_dot_product_attention:
            return function(*args, **kwargs)
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        query = given[0]
        if query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16):
            return function(*args, **kwargs)
        if not (torch.is_grad_enabled() and any(value.requires_grad for value in given)):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            wide = function(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})
        return wide.to(query.dtype)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
