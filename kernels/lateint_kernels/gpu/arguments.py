"""What kernels are given: names of types, and addresses."""

from torch import Tensor

TOKEN = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32"}


def pointer(tensor: Tensor | None) -> int | None:
    """Where a tensor begins; None for none."""
    return None if tensor is None else tensor.data_ptr()


def aligned(tokens: Tensor) -> Tensor:
    """Rows are read 16 bytes at a time; a view may begin in between."""
    return tokens if tokens.data_ptr() % 16 == 0 else tokens.clone()
