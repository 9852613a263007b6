"""Types of the compiled module; every argument arrives checked and contiguous."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

def best_isa() -> str: ...
def isa_limit() -> str: ...
def active_isa() -> str: ...
def set_active_isa(name: str) -> None: ...
def default_threads() -> int: ...
def parallel_for(tasks: int, threads: int, body: Callable[[int, int], object]) -> None: ...
def first_nonfinite_row(tokens: NDArray[Any], dtype: int, threads: int) -> int: ...
def first_zero_row(tokens: NDArray[Any], dtype: int, threads: int) -> int: ...
def maxsim(
    queries: NDArray[Any],
    query_dtype: int,
    query_offsets: NDArray[np.int64],
    documents: NDArray[Any],
    document_dtype: int,
    document_offsets: NDArray[np.int64],
    threads: int,
) -> NDArray[np.float32]: ...
def maxsim_pairs(
    queries: NDArray[Any],
    query_dtype: int,
    query_offsets: NDArray[np.int64],
    documents: NDArray[Any],
    document_dtype: int,
    document_offsets: NDArray[np.int64],
    query_index: NDArray[np.int64],
    document_index: NDArray[np.int64],
    threads: int,
) -> NDArray[np.float32]: ...
