"""Operators of late interaction on CPU: numpy arrays in, numpy arrays out; torch is never imported.

Symbols, the same everywhere: ``Nq`` queries of ``Lq`` tokens, ``n`` documents of ``Ld`` tokens, ``T`` tokens in all,
``dim`` numbers per token.
"""

from lateint_kernels.arrays import BFLOAT16, as_array, to_bfloat16, to_float32
from lateint_kernels.backends import BackendError, explain
from lateint_kernels.maxsim import maxsim, maxsim_pairs
from lateint_kernels.ragged import Ragged, check_finite, first_nonfinite_row, first_zero_row

__all__ = [
    "BFLOAT16",
    "BackendError",
    "Ragged",
    "as_array",
    "check_finite",
    "explain",
    "first_nonfinite_row",
    "first_zero_row",
    "maxsim",
    "maxsim_pairs",
    "to_bfloat16",
    "to_float32",
]
