"""Operators of late interaction: numpy arrays in, numpy arrays out; torch tensors in, differentiable tensors out.

torch is imported when a tensor is given or `RaggedTensor` is asked for, not before.

Symbols, the same everywhere: ``Nq`` queries of ``Lq`` tokens, ``Nd`` documents of ``Ld`` tokens (``K`` for each query
where it has its own), ``P`` pairs, ``T`` tokens in all, ``dim`` numbers per token.
"""

from typing import TYPE_CHECKING, Any

from lateint_kernels.arrays import BFLOAT16, as_array, to_bfloat16, to_float32
from lateint_kernels.backends import BackendError, explain
from lateint_kernels.dense.pooling import pool
from lateint_kernels.dense.sketch import Sketched
from lateint_kernels.maxsim import maxsim, maxsim_pairs
from lateint_kernels.ragged import Ragged, check_finite, first_nonfinite_row, first_zero_row
from lateint_kernels.retrieve import retrieve

if TYPE_CHECKING:
    from lateint_kernels.ragged_tensor import RaggedTensor

__all__ = [
    "BFLOAT16",
    "BackendError",
    "Ragged",
    "RaggedTensor",
    "Sketched",
    "as_array",
    "check_finite",
    "explain",
    "first_nonfinite_row",
    "first_zero_row",
    "maxsim",
    "maxsim_pairs",
    "pool",
    "retrieve",
    "to_bfloat16",
    "to_float32",
]


def __getattr__(name: str) -> Any:
    if name == "RaggedTensor":
        from lateint_kernels.ragged_tensor import RaggedTensor

        return RaggedTensor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
