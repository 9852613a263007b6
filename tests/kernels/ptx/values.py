"""Types of registers, and how bits are read as numbers."""

import numpy as np

TYPES = {
    "pred": np.bool_,
    "b8": np.uint8,
    "u8": np.uint8,
    "s8": np.int8,
    "b16": np.uint16,
    "u16": np.uint16,
    "s16": np.int16,
    "f16": np.float16,
    "b32": np.uint32,
    "u32": np.uint32,
    "s32": np.int32,
    "f32": np.float32,
    "b64": np.uint64,
    "u64": np.uint64,
    "s64": np.int64,
    "f64": np.float64,
}
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def size_of(kind):
    """Bytes of a type."""
    return np.dtype(TYPES[kind]).itemsize


def halves(words, kind):
    """The two numbers of 16 bits in each word, ``[n, 2]`` float64."""
    bits = np.ascontiguousarray(words).view(np.uint16).reshape(-1, 2)
    if kind == "bf16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return bits.view(np.float16).astype(np.float64)


def signed_bytes(words):
    """The four bytes of each word, ``[n, 4]`` float64."""
    return np.ascontiguousarray(words).view(np.int8).reshape(-1, 4).astype(np.float64)


def to_bf16(numbers):
    """float32 to nearest, ties to even, as 16 bits; a NaN is 0x7fff."""
    bits = np.ascontiguousarray(numbers.astype(np.float32)).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FFF), rounded)
