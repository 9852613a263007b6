"""Arrays in messages: nested lists, or bytes with a dtype and a shape."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, WithJsonSchema

from lateint_server import pictures
from lateint_server.pictures import Pictured

DTYPES = {"float32": "<f4", "float16": "<f2"}
BINARY = "application/msgpack"
LONGEST = 1 << 16  # tokens
SCHEMA = {
    "title": "Embedding",
    "description": "Token embeddings [L, dim]: a list of lists of numbers; or their bytes, little-endian and row by "
    "row, in base64. In MessagePack, `data` holds the bytes themselves.",
    "anyOf": [
        {
            "type": "array",
            "minItems": 1,
            "maxItems": LONGEST,
            "items": {"type": "array", "minItems": 1, "items": {"type": "number"}},
        },
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["base64", "dtype", "shape"],
            "properties": {
                "base64": {"type": "string", "contentEncoding": "base64"},
                "dtype": {"type": "string", "enum": list(DTYPES)},
                "shape": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "minimum": 1}},
            },
        },
    ],
}


def read(value: Any) -> NDArray[Any]:
    """Token embeddings ``[L, dim]`` of a message.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, dict):
        return _unpacked(value)
    if not isinstance(value, list):
        raise ValueError(
            f"must be a list of lists of numbers, or an object with base64, dtype and shape, got {type(value).__name__}"
        )
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        raise ValueError("must be a list of token embeddings of one length") from None
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
        raise ValueError("must be a list of token embeddings of one length, each a list of numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)  # beyond float32 is inf, which an index refuses


def _unpacked(value: dict[Any, Any]) -> NDArray[Any]:
    coded = "base64" in value
    names = {"base64" if coded else "data", "dtype", "shape"}
    if set(value) != names:
        raise ValueError(f"must be an object with base64 (or data), dtype and shape, got {sorted(map(str, value))}")
    dtype, shape, data = value["dtype"], value["shape"], value["base64" if coded else "data"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    sizes = isinstance(shape, (list, tuple)) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)
    if not sizes:
        raise ValueError(f"shape must be two integers from 1, got {shape!r}")
    if coded:
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise ValueError("base64 must be a string in base64") from None
    elif not isinstance(data, bytes):
        raise ValueError(f"data must be binary, got {type(data).__name__}")
    kind = np.dtype(DTYPES[dtype])
    if len(data) != shape[0] * shape[1] * kind.itemsize:
        raise ValueError(
            f"shape {list(shape)} of {dtype} takes {shape[0] * shape[1] * kind.itemsize} bytes, got {len(data)}"
        )
    array: NDArray[Any] = np.frombuffer(data, kind).reshape(shape)
    return array


def written(array: NDArray[np.float32], *, binary: bool) -> dict[str, Any]:
    """The message of an array ``[n, m]``."""
    data = np.ascontiguousarray(array, "<f4").tobytes()
    named = {"data": data} if binary else {"base64": base64.b64encode(data).decode("ascii")}
    return {**named, "dtype": "float32", "shape": list(array.shape)}


def read_query(value: Any) -> NDArray[Any] | str | Pictured:
    """A text, a text with a picture, or as `read`."""
    if isinstance(value, str) and value:
        return value
    return pictures.read(value) if pictures.is_pictured(value) else read(value)


Embedding = Annotated[Any, PlainValidator(read), WithJsonSchema(SCHEMA)]
Query = Annotated[
    Any,
    PlainValidator(read_query),
    WithJsonSchema(
        {
            "title": "Query",
            "description": "An embedding; or a text, or a text with a picture, where the index has an encoder for it.",
            "anyOf": [{"type": "string", "minLength": 1}, SCHEMA, pictures.SCHEMA],
        }
    ),
]
