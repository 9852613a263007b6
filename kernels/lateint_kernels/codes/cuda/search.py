"""The stages of a search with products by the kernel best_products.cu; the others, and other widths, are Triton's."""

import torch
from torch import Tensor

from lateint_kernels.codes.cuda import products
from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors
from lateint_kernels.codes.triton import search as triton
from lateint_kernels.codes.triton.search import probe, probe_cells, rotate, weighted

__all__ = ["best_products", "probe", "probe_cells", "rotate", "weighted", "why_not"]


def best_products(index: IndexTensors, queries: QueryTensors, positions: Tensor) -> Tensor:
    """See `lateint_kernels.codes.triton.search.best_products`."""
    module = products if products.takes(index) else triton
    return module.best_products(index, queries, positions)


def why_not(
    op: str, device: torch.device | str, dtype: torch.dtype | None = None, dim: int | None = None
) -> str | None:
    """Why this cannot run on a device; None if it can."""
    return products.why_not(op, device, dtype, dim) or triton.why_not(op, device, dtype, dim)
