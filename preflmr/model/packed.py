"""Linear layers in bfloat16 on a CPU: a weight that does not change is laid out for the products once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

FEWEST_ROWS = 256  # with fewer, a layer is bound by reading its weight, and gains nothing


class PackedLinear(TorchFunctionMode):  # type: ignore[misc]  # torch is untyped here
    """While it is entered, ``x W^T + b`` without gradients, in bfloat16 on a CPU, reads W as oneDNN wants it.

    torch rounds a float32 W under autocast, and has oneDNN reorder it, at each call; here this is done at the first
    one, and again once W has changed. The products are of the same numbers. Where torch comes without
    oneDNN, nothing is done.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packed = WeakTensorKeyDictionary()  # of parameters; gone with them

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is functional.linear:
            return self._linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _packs(input, weight, bias):
            return functional.linear(input, weight, bias)
        state, packed = self._packed.get(weight, (None, None))
        if state != _state(weight):
            packed = _packed(weight, input.numel() // input.shape[-1])
            self._packed[weight] = _state(weight), packed
        narrow = None if bias is None else bias.bfloat16()
        found: Tensor = torch.ops.mkldnn._linear_pointwise(input.bfloat16(), packed, narrow, "none", [], "")
        return found


def _packs(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if torch.is_grad_enabled() or not isinstance(weight, torch.nn.Parameter) or input.device.type != "cpu":
        return False
    if weight.is_inference():  # made in inference mode: nothing tells when it changes
        return False
    if input.numel() < FEWEST_ROWS * input.shape[-1] or not torch.backends.mkldnn.is_available():
        return False
    given = {tensor.dtype for tensor in (input, weight, bias) if tensor is not None}
    if torch.is_autocast_enabled("cpu") and torch.float64 not in given:  # which autocast leaves as it is
        given = {torch.get_autocast_dtype("cpu")}
    return given == {torch.bfloat16} and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _packed(weight: Tensor, rows: int) -> Tensor:
    """A weight as oneDNN wants it, for so many rows of input."""
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().bfloat16(), rows)
    return found


def _state(weight: Tensor) -> tuple[int, ...]:
    """Another one after a change in place, or of what ``weight.data`` is."""
    return weight.data_ptr(), weight._version
