"""A codec by itself: learned once, for indexes that are built in parts, later, or from a stream."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lateint.indexing import builder, documents
from lateint.indexing.codec import Codec
from lateint.timings import Timings
from lateint_kernels.codes import building
from lateint_kernels.devices import Place


def train_codec(
    source: Any,
    *,
    lengths: Any = None,
    nbits: int | None = None,
    ncentroids: int | None = None,
    seed: int | None = None,
    pool: int | None = None,
    max_ram: int | None = None,
    allow_empty: bool = False,
    threads: int | None = None,
    progress: bool = True,
    device: Any = None,
) -> Codec:
    """Learns how to compress tokens like those of ``source``, which may be a part of what is to be indexed.

    ``Index.build(source, codec=train_codec(source))`` gives the bytes of ``Index.build(source)``. The number of
    centroids follows from the number of tokens: for a sample of a larger collection, say with ``ncentroids`` how many
    the collection needs, about one for 48 of its tokens up to 16,384.

    Args:
        source: token embeddings, as ``doc_embs`` of `lateint.Index.build`. An iterator that runs only once is kept in a
            temporary file.
        lengths, nbits, ncentroids, seed, pool, max_ram, allow_empty, threads, progress: as in `lateint.Index.build`.
        device: where to learn; of several, the first. The codec is the same.

    Raises:
        TypeError, ValueError, BackendError, MemoryError: as `lateint.Index.build`.
    """
    settings = builder.checked(
        nbits=nbits,
        ncentroids=ncentroids,
        seed=seed,
        max_ram=max_ram,
        threads=threads,
        progress=progress,
        pool=pool,
    )
    operators = building.operators(Place.of(device), settings.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="lateint-") as folder:
            tokens = documents.read(
                source, lengths, allow_empty=allow_empty, spool=Path(folder) / "spool.bin", operators=operators
            )
            tokens = builder.prepared(tokens, settings, Path(folder) / "pooled.bin", operators)
            return builder.train(tokens, builder.plan(tokens, settings), operators, Timings())
    finally:
        operators.release()
