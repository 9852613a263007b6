"""From whatever users hold tokens in to plain numpy arrays, without importing the library that made them.

Kernels know four element types: float32, float16, bfloat16 and int8. numpy has no bfloat16, so here it is the
structured dtype `BFLOAT16`, which can be sliced, memory-mapped and saved like any other; `to_float32` gives its
numbers.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BFLOAT16 = np.dtype([("bfloat16", "<u2")])

# As csrc/platform/dtype.hpp counts them.
DTYPE_CODES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, BFLOAT16: 2, np.dtype(np.int8): 3}


def as_array(x: object, name: str, *, int8: bool = False) -> Array:
    """The numbers of ``x`` as a C-contiguous numpy array of a type that kernels know.

    Takes numpy arrays (ml_dtypes' bfloat16 too), torch tensors on any device, requiring grad or not, jax arrays, DLPack
    exporters and nested lists. Nothing is copied where type and layout already fit; float64 and numbers in lists become
    float32.

    Args:
        x: the array-like, of any shape.
        name: what to call it in an error message.
        int8: whether int8 is welcome; other integers never are.

    Returns:
        An array of dtype float32, float16, `BFLOAT16` or int8.

    Raises:
        TypeError: ``x`` is no array, or holds something other than such numbers.
        ValueError: ``x`` is a ragged list.

    >>> as_array([[1.0, 2.0]], "queries")
    array([[1., 2.]], dtype=float32)
    """
    if type(x) is np.ndarray and x.dtype == np.float32 and x.flags.c_contiguous and x.flags.aligned:
        return x
    array = _from_any(x, name)
    dtype = array.dtype
    if dtype.name == "bfloat16":  # ml_dtypes, known by its name
        array = array.view(np.uint16).view(BFLOAT16)
    elif dtype.kind == "f" and dtype.itemsize == 8:
        array = array.astype(np.float32)
    elif not dtype.isnative and dtype.newbyteorder("=") in DTYPE_CODES:
        array = array.astype(dtype.newbyteorder("="))
    if array.dtype not in DTYPE_CODES or (array.dtype == np.int8 and not int8):
        known = "float32, float16, bfloat16 or float64" + (" or int8" if int8 else "")
        raise TypeError(f"{name} must be {known}, got {dtype}")
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, requirements=["C", "A"])


def to_float32(array: Array) -> NDArray[np.float32]:
    """The same numbers as float32: exact, since every type that kernels know fits into it.

    >>> to_float32(np.array([0x3F80, 0xC000], dtype=np.uint16).view(BFLOAT16))
    array([ 1., -2.], dtype=float32)
    """
    if array.dtype == BFLOAT16:
        return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def to_bfloat16(array: Array) -> Array:
    """The nearest bfloat16 of each number, ties to even; a NaN stays one. The result has dtype `BFLOAT16`.

    >>> to_float32(to_bfloat16(np.array([1.0, 3.14159265], dtype=np.float32)))
    array([1.      , 3.140625], dtype=float32)
    """
    if array.dtype == BFLOAT16:
        return array
    numbers = array.astype(np.float32)
    bits = numbers.view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded).view(BFLOAT16)


def unmasked(x: Any, name: str) -> Array:
    """``x`` as numpy makes an array of it; a masked array must mask nothing, for its mask would be lost.

    Raises:
        TypeError: a number is masked.
        ValueError: ``x`` is a ragged list.
    """
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise TypeError(
            f"{name} must not be masked, got a masked array that masks {np.ma.getmaskarray(x).sum()} numbers"
        )
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of one shape and dtype") from error


def check_dense(torch: Any, x: Any, name: str) -> None:
    """Refuses tensors whose numbers do not lie in memory as they are: sparse, nested and quantized; ``torch`` is it."""
    if x.is_nested or x.layout != torch.strided or x.is_quantized:
        kind = "a nested one" if x.is_nested else "a quantized one" if x.is_quantized else str(x.layout)
        raise TypeError(f"{name} must be a dense tensor, got {kind}")


def check_there(x: Any, name: str) -> None:
    """Refuses tensors that hold no numbers."""
    if x.device.type == "meta":
        raise TypeError(f"{name} must hold numbers, got a tensor on meta")


def _from_any(x: Any, name: str) -> Array:
    if isinstance(x, np.ndarray):
        return unmasked(x, name).view(np.ndarray)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _from_torch(torch, x, name)
    if isinstance(x, list | tuple):
        return _from_list(x, name)
    try:
        if hasattr(x, "__array__"):
            return np.asarray(x)
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from error
    raise TypeError(f"{name} must be an array, got {type(x).__name__}")


def _from_torch(torch: Any, x: Any, name: str) -> Array:
    check_dense(torch, x, name)
    check_there(x, name)
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8):
        raise TypeError(f"{name} must be float32, float16, bfloat16 or float64, got {x.dtype}")
    x = x.detach().cpu().resolve_neg()
    if x.dtype == torch.bfloat16:
        return np.asarray(x.view(torch.int16).numpy()).view(BFLOAT16)
    return np.asarray(x.numpy())


def _from_list(x: Any, name: str) -> Array:
    if any(not isinstance(row, list | tuple | float | int | np.generic) for row in x):
        rows = [as_array(row, f"{name}[{i}]", int8=True) for i, row in enumerate(x)]
        if len({row.shape for row in rows}) > 1 or len({row.dtype for row in rows}) > 1:
            raise ValueError(f"{name} must have rows of one shape and dtype")
        return np.stack(rows)
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} must have rows of one shape and dtype") from error
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    return array
