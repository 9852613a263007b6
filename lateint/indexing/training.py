"""A codec by itself: learned once, for indexes that are built in parts, later, or from a stream."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lateint.arguments import device_name, integer, positive_or_none, thread_count
from lateint.indexing import builder, documents
from lateint.indexing.codec import Codec
from lateint.indexing.encoding import Timings
from lateint_kernels.codes import building
from lateint_kernels.codes.residual import NBITS

MOST_CENTROIDS = 1 << 24


def train_codec(
    source: Any,
    *,
    lengths: Any = None,
    nbits: int = 4,
    ncentroids: int | None = None,
    seed: int = 0,
    max_ram: int | None = None,
    allow_empty: bool = False,
    threads: int | None = None,
    progress: bool = True,
    device: Any = None,
) -> Codec:
    """Learns how to compress tokens like those of ``source``, which may be a part of what is to be indexed.

    ``Index.build(source, codec=train_codec(source))`` gives the bytes of ``Index.build(source)``. The number of
    centroids follows from the number of tokens: for a sample of a larger collection, say with ``ncentroids`` how many
    the collection needs, about one for 240 of its tokens.

    Args:
        source: token embeddings, as ``doc_embs`` of `lateint.Index.build`. An iterator that runs only once is kept in a
            temporary file.
        lengths, nbits, ncentroids, seed, max_ram, allow_empty, threads, progress: as in `lateint.Index.build`.
        device: where to learn; of several, the first. The codec is the same.

    Raises:
        TypeError, ValueError, BackendError, MemoryError: as `lateint.Index.build`.
    """
    settings = checked(nbits, ncentroids, seed, max_ram, threads, progress)
    operators = building.operators(device_name(device).split(",")[0], settings["threads"])
    try:
        with tempfile.TemporaryDirectory(prefix="lateint-") as folder:
            tokens = documents.read(
                source, lengths, allow_empty=allow_empty, spool=Path(folder) / "spool.bin", operators=operators
            )
            return builder.train(tokens, builder.plan(tokens, **settings), operators, Timings())
    finally:
        operators.release()


def checked(
    nbits: Any, ncentroids: Any, seed: Any, max_ram: Any, threads: Any, progress: bool, codec: Any = None
) -> dict[str, Any]:
    """Settings of `builder.plan` as users pass them; with a codec, those that it has must agree or be None.

    Raises:
        TypeError, ValueError: one of them cannot be; the message names it.
    """
    if codec is not None:
        if not isinstance(codec, Codec):
            raise TypeError(f"codec must be a lateint.Codec, got {type(codec).__name__}")
        fixed = {
            "nbits": (nbits, codec.nbits),
            "ncentroids": (ncentroids, len(codec.centroids)),
            "seed": (seed, codec.seed),
        }
        for name, (given, found) in fixed.items():
            if given is not None and integer(given, name) != found:
                raise ValueError(f"{name} must be left out or be that of the codec, {found}, got {given}")
    nbits, seed = 4 if nbits is None else nbits, 0 if seed is None else seed
    if codec is not None:
        nbits = codec.nbits
    if integer(nbits, "nbits") not in NBITS:
        raise ValueError(f"nbits must be one of {', '.join(map(str, NBITS))}, got {nbits!r}")
    if ncentroids is not None and not 1 <= integer(ncentroids, "ncentroids") <= MOST_CENTROIDS:
        raise ValueError(f"ncentroids must be between 1 and {MOST_CENTROIDS}, got {ncentroids}")
    if integer(seed, "seed") < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    return {
        "nbits": nbits,
        "ncentroids": ncentroids,
        "max_ram": positive_or_none(max_ram, "max_ram"),
        "seed": seed,
        "threads": thread_count(threads),
        "progress": progress,
    }
