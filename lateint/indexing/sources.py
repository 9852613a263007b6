"""Documents from files and data sets, for `lateint.Index.build` and `lateint.train_codec`.

Each is an iterable that starts afresh whenever it is read; nothing is held in memory but what is being read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import BFLOAT16

PathLike = str | os.PathLike[str]

CHUNK = 1 << 15  # tokens of a file given at a time
ROWS = 256  # of a data set
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16}


class Npy:
    """Documents in ``.npy`` files, which are mapped: of each pair of files, all tokens ``[T, dim]`` end to end, and
    how many tokens each document has, ``[n]``.

    Raises:
        ValueError: a file is no such array, or lengths do not add up to its tokens; the message names it.
    """

    def __init__(self, tokens: PathLike | Sequence[PathLike], lengths: PathLike | Sequence[PathLike]) -> None:
        self.tokens, self.lengths = _listed(tokens), _listed(lengths)
        if len(self.tokens) != len(self.lengths):
            raise ValueError(
                f"lengths must name a file for each of tokens, got {len(self.lengths)} for {len(self.tokens)}"
            )

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        for path, of_lengths in zip(self.tokens, self.lengths, strict=True):
            tokens, lengths = _array(path, 2), _array(of_lengths, 1).astype(np.int64)
            if lengths.sum() != len(tokens) or (lengths < 0).any():
                raise ValueError(f"{of_lengths} must add up to the {len(tokens)} tokens of {path}, got {lengths.sum()}")
            yield from _cut(tokens, lengths)


class Safetensors:
    """Documents in safetensors files, which are mapped: each tensor ``[Ld, dim]`` is one, in the order of their names.

    Float32, float16 or bfloat16. `ids` are the names.

    Raises:
        ValueError: a file is damaged, or a tensor is none of these; the message names it.
    """

    def __init__(self, paths: PathLike | Sequence[PathLike]) -> None:
        self.paths = _listed(paths)

    @property
    def ids(self) -> list[str]:
        """The names of the tensors."""
        return [name for path in self.paths for name, _ in _tensors(path)]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for path in self.paths:
            tensors = _tensors(path)
            data = np.memmap(path, np.uint8, "r")
            begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
            for name, entry in tensors:
                dtype, shape = DTYPES.get(entry["dtype"]), entry["shape"]
                if dtype is None or len(shape) != 2:
                    raise ValueError(
                        f"{path}: {name} must be [Ld, dim] of {', '.join(DTYPES)}, got {entry['dtype']} {shape}"
                    )
                first, last = entry["data_offsets"]
                if not 0 <= first <= last <= len(data) - begin or last - first != shape[0] * shape[1] * dtype.itemsize:
                    raise ValueError(f"{path}: {name} lies outside of the file, which is damaged")
                yield np.frombuffer(data[begin + first : begin + last].tobytes(), dtype).reshape(shape)


class Column:
    """A column of a Hugging Face data set, each row of which is a document: a list of ``Ld`` lists of dim numbers.

    Numbers become float32. The data set may be one that is streamed (`datasets.IterableDataset`).

    Raises:
        ValueError: there is no such column, or it holds something else; the message names it.
    """

    def __init__(self, dataset: Any, column: str) -> None:
        if dataset.column_names is not None and column not in dataset.column_names:
            raise ValueError(f"column must be one of {', '.join(dataset.column_names)}, got {column!r}")
        self.dataset, self.column = dataset, column

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for table in self.dataset.select_columns([self.column]).with_format("arrow").iter(batch_size=ROWS):
            for chunk in table.column(self.column).chunks:
                if len(chunk):
                    yield self._documents(chunk)

    def _documents(self, chunk: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        try:
            chunk = getattr(chunk, "storage", chunk)  # of datasets.Array2D
            lengths = np.asarray(chunk.value_lengths(), np.int64)
            tokens = chunk.flatten()
            dims = np.unique(tokens.value_lengths())
            numbers = tokens.flatten()
            if chunk.null_count or tokens.null_count or numbers.null_count or len(dims) > 1:
                raise ValueError(f"column {self.column!r} must hold lists of lists of one length, without nulls")
            rows = numbers.to_numpy(zero_copy_only=False).astype(np.float32)
        except AttributeError:
            raise ValueError(
                f"column {self.column!r} must hold a list of lists in each row, got {chunk.type}"
            ) from None
        return rows.reshape(int(lengths.sum()), -1 if len(rows) else 0), lengths


def _listed(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]


def _array(path: Path, axes: int) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from None
    if array.ndim != axes:
        raise ValueError(f"{path} must have {axes} {'axes' if axes > 1 else 'axis'}, got {array.ndim}")
    return array


def _cut(tokens: NDArray[Any], lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Whole documents, about CHUNK tokens at a time."""
    ends, first = np.cumsum(lengths), 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        yield tokens[before : ends[last - 1]], lengths[first:last]
        first = last


def _tensors(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The names of the tensors of a file, in order, and what its header says of each."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= size - 8:
            raise ValueError(f"{path} is not a safetensors file: its header would have {length:,} bytes")
        try:
            header = json.loads(stream.read(length))
            named = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
            for _, entry in named:
                _ = str(entry["dtype"]), [int(n) for n in entry["shape"]], [int(n) for n in entry["data_offsets"]]
                _first, _last = entry["data_offsets"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
    return sorted(named)
