"""An index built by many workers: one codec, a part for each block of rows, and a merge."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lateint import Codec, Index, train_codec
from lateint.arguments import positive
from lateint.indexing.builder import default_centroids
from lateint_ray.parts import Building, Encoding, Job, description, sampled
from lateint_ray.rows import Columns, Rows
from lateint_ray.starting import ray, start

log = logging.getLogger(__name__)
READERS = {".parquet": "read_parquet", ".jsonl": "read_json", ".json": "read_json", ".csv": "read_csv"}


def build(
    source: Any,
    path: str | os.PathLike[str],
    *,
    parts: int,
    encoder: Any = None,
    num_gpus: float = 0,
    num_cpus: float = 1,
    workers: int | None = None,
    codec: Codec | None = None,
    sample: int = 50_000,
    nbits: int | None = None,
    ncentroids: int | None = None,
    seed: int | None = None,
    id: str = "id",
    text: str = "text",
    embedding: str = "embedding",
    metadata: Sequence[str] = (),
    sparse: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Index:
    """Builds an index with the workers of a cluster of Ray; the files are the same whichever worker does what.

    Ray Data reads ``source`` and cuts it into ``parts`` runs of rows. Each run is encoded and built by one worker, with
    one codec for all, into a folder beside ``path`` whose name says what it is made of. What a lost worker was at is
    done again by another. A job that was stopped and is started again keeps the parts that are there and whole. At the
    end the parts become one index (`Index.merge`).

    Args:
        source: a ``ray.data.Dataset``, or the path of Parquet, JSON (lines) or CSV files, or a list of paths. Rows come
            in their order.
        path: the folder to write, which all workers must see, as ``source``.
        parts: how many; more than workers, so that little is lost with one, and that none waits long at the end.
        encoder: of the texts: a class or a function that makes one in each worker, or an encoder, which is pickled. See
            `lateint.encoders`. None: rows have embeddings ``[L, dim]``.
        num_gpus, num_cpus: of each worker.
        workers: at most so many at a time; None: as many as the cluster has room for.
        codec: see `lateint.train_codec`; None: one is learned from ``sample`` documents, evenly spread over all.
        nbits, ncentroids, seed: of that codec, see `Index.build`.
        id, text, embedding: columns. Texts are kept where they are there.
        metadata: columns to keep as metadata.
        sparse: column of sparse vectors: objects such as ``{"fox": 1.5}``, or their JSON; None: there are none.
        overwrite: replace an index at ``path``.
        progress: show what Ray Data does.

    Raises:
        ImportError: Ray is not installed.
        FileExistsError: there is something at ``path``.
        TypeError, ValueError: ``source`` lacks a column, or as `Index.build` and `Index.merge`.
    """
    place, columns = Path(path).absolute(), Columns(id, text, embedding, tuple(metadata), sparse)
    positive(parts, "parts"), positive(sample, "sample")
    if place.exists() and not overwrite:
        raise FileExistsError(f"{place} exists already; pass overwrite=True to replace it")
    start()
    folder = place.with_name(f"{place.name}.parts")
    with _in_order(_dataset(source), progress) as rows:
        there = rows.materialize()  # which reads the source once
        columns.check(there.columns() or [], encoder is not None)
        count = there.count()
        blocks = there.repartition(min(parts, max(1, count))).materialize()
        pool = _pool(encoder, blocks.num_blocks(), workers, num_cpus, num_gpus)
        known = _described(encoder, num_cpus, num_gpus)
        folder.mkdir(parents=True, exist_ok=True)
        if codec is None:
            settings = {"nbits": nbits, "ncentroids": ncentroids, "seed": seed}
            kept = _learned(blocks, count, sample, columns, encoder, known, settings, pool, folder)
        else:
            kept = _saved(codec, folder / f"codec-{codec.crc32:08x}")
        job = Job(folder, kept, columns, known, max(1, int(num_cpus)))
        done = _mapped(blocks, Building, (job, encoder), pool).take_all()
    log.info("%d parts, %d of them were there", len(done), sum(one["kept"] for one in done))
    index = Index.merge([folder / one["part"] for one in done], place, overwrite=overwrite)
    shutil.rmtree(folder)
    return index


def _dataset(source: Any) -> Any:
    import ray.data

    if isinstance(source, ray.data.Dataset):
        return source
    paths = [source] if isinstance(source, (str, os.PathLike)) else source
    if not isinstance(paths, Iterable):
        raise TypeError(f"source must be a ray.data.Dataset or paths, got {type(source).__name__}")
    files = [os.fspath(one) for one in paths]
    kinds = {os.path.splitext(file)[1] or ".parquet" for file in files}
    if len(kinds) != 1 or not kinds <= READERS.keys():
        raise ValueError(
            f"source must be files that end in one of {', '.join(READERS)}, got {', '.join(sorted(kinds))}"
        )
    return getattr(ray.data, READERS[kinds.pop()])(files)


@contextmanager
def _in_order(rows: Any, progress: bool) -> Iterator[Any]:
    """Has Ray Data give blocks in their order for as long as the block runs."""
    context = rows.context
    before = context.execution_options.preserve_order, context.enable_progress_bars
    context.execution_options.preserve_order, context.enable_progress_bars = True, progress
    try:
        yield rows
    finally:
        context.execution_options.preserve_order, context.enable_progress_bars = before


def _pool(encoder: Any, blocks: int, workers: int | None, num_cpus: float, num_gpus: float) -> dict[str, Any]:
    """How many workers there are, and what each takes; actors keep their encoder from one part to the next."""
    if workers is None:
        there = ray().cluster_resources()
        rooms = [there.get(kind, 0) / each for kind, each in (("CPU", num_cpus), ("GPU", num_gpus)) if each]
        workers = int(min(rooms)) if rooms else blocks
    most = max(1, min(positive(max(1, workers), "workers"), blocks))
    size = ray().data.ActorPoolStrategy(min_size=1, max_size=most)
    return {"compute": size, "num_cpus": num_cpus, "num_gpus": num_gpus}


def _mapped(blocks: Any, work: type, arguments: tuple[Any, ...], pool: dict[str, Any]) -> Any:
    return blocks.map_batches(work, batch_size=None, batch_format="numpy", fn_constructor_args=arguments, **pool)


def _described(encoder: Any, num_cpus: float, num_gpus: float) -> dict[str, Any] | None:
    if encoder is None:
        return None
    task = ray().remote(description).options(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=-1)
    found: dict[str, Any] | None = ray().get(task.remote(encoder))
    return found


def _learned(
    blocks: Any,
    count: int,
    sample: int,
    columns: Columns,
    encoder: Any,
    known: dict[str, Any] | None,
    settings: dict[str, Any],
    pool: dict[str, Any],
    folder: Path,
) -> Path:
    """The folder of the codec of some documents, which may be there from an earlier try."""
    share = -(-sample // blocks.num_blocks())
    some = blocks.map_batches(sampled, batch_size=None, batch_format="numpy", fn_kwargs={"count": share}).materialize()
    names = [
        Rows.of(block, columns).fingerprint() for block in some.iter_batches(batch_size=None, batch_format="numpy")
    ]
    place = folder / f"codec-{Rows(names, None, None, None).fingerprint(known, settings, count)}"
    if place.is_dir():
        return place
    encoded = _mapped(some, Encoding, (columns, encoder), pool).take_all()
    tokens = [np.frombuffer(one["tokens"], one["dtype"]).reshape(-1, one["dim"]) for one in encoded]
    if settings["ncentroids"] is None and len(tokens) < count:
        of_all = sum(map(len, tokens)) * count // len(tokens)
        settings = {**settings, "ncentroids": min(default_centroids(of_all), sum(map(len, tokens)))}
    return _saved(train_codec(tokens, progress=False, **settings), place)


def _saved(codec: Codec, place: Path) -> Path:
    codec.save(place, overwrite=place.is_dir())
    return place
