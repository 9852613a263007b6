"""What workers do: they sample and encode a block of rows, and build a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import Codec, Index
from lateint.encoders.protocol import Encoder, adapted, described
from lateint_ray.rows import Columns, Rows

Block = Mapping[str, NDArray[Any]]


def made(encoder: Any) -> Encoder | None:
    """The encoder of a worker: a class or a function makes one, anything else is one."""
    if encoder is None:
        return None
    factory = isinstance(encoder, type) or not any(hasattr(encoder, name) for name in ("encode", "encode_document"))
    return adapted(encoder() if factory and callable(encoder) else encoder)


def description(encoder: Any) -> dict[str, Any] | None:
    """What an index keeps of an encoder; None: there is none."""
    one = made(encoder)
    return None if one is None else described(one)


def sampled(block: Block, count: int) -> dict[str, NDArray[Any]]:
    """So many rows of a block, evenly spread."""
    length = len(next(iter(block.values())))
    chosen = np.linspace(0, length - 1, min(count, length)).astype(np.int64)
    return {name: values[chosen] for name, values in block.items()}


class Encoding:
    """Gives the embeddings of rows, as bytes and shapes."""

    def __init__(self, columns: Columns, encoder: Any) -> None:
        self.columns, self.encoder = columns, made(encoder)

    def __call__(self, block: Block) -> dict[str, list[Any]]:
        rows = Rows.of(block, self.columns)
        if self.encoder is None:
            tokens = rows.embeddings or []
        else:
            tokens = [_floats(one) for one in self.encoder.encode_document(rows.texts or [])]
        return {
            "tokens": [np.ascontiguousarray(one).tobytes() for one in tokens],
            "dtype": [one.dtype.str for one in tokens],
            "dim": [one.shape[1] for one in tokens],
        }


def _floats(tokens: Any) -> NDArray[Any]:
    from lateint_kernels import as_array, to_float32

    return to_float32(as_array(tokens, "embedding"))


@dataclass(frozen=True)
class Job:
    """What all parts have in common.

    Attributes:
        folder: of the parts, which all workers see.
        codec: the folder of the codec.
        encoder: the description of what encodes; None: rows have embeddings.
    """

    folder: Path
    codec: Path
    columns: Columns
    encoder: dict[str, Any] | None
    threads: int


class Building:
    """Builds the part of a block, unless it is there; its name says what it is made of, so it does not matter who."""

    def __init__(self, job: Job, encoder: Any) -> None:
        self.job, self.encoder = job, made(encoder)
        self.codec = Codec.load(job.codec)

    def __call__(self, block: Block) -> dict[str, list[Any]]:
        rows = Rows.of(block, self.job.columns)
        name = f"part-{rows.fingerprint(self.codec.crc32, self.job.encoder)}"
        path = self.job.folder / name
        kept = path.is_dir() and bool(Index.verify(path))
        if not kept:
            Index.build(
                rows.embeddings if self.encoder is None else None,
                path,
                texts=rows.texts,
                encoder=self.encoder,
                ids=rows.ids,
                metadata=rows.metadata,
                sparse=rows.sparse,
                codec=self.codec,
                overwrite=path.exists(),
                threads=self.job.threads,
                progress=False,
            )
        return {"part": [name], "documents": [len(rows.ids)], "kept": [kept]}
