"""Rows of a table, wherever they lie: JSON lines, parquet, a data set saved by `datasets`, or one on the hub.

Every row comes with its place ("FILE, line 3"), so that whoever finds a mistake in it can say where.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 1000  # rows of a data set read together

Row = tuple[str, Mapping[str, Any]]  # place and columns


@dataclass(frozen=True)
class Table:
    """A file of JSON lines, or a `datasets.Dataset`.

    Attributes:
        name: what messages call it.
        source: the path of the JSON lines, or the data set.
    """

    name: str
    source: Any

    def rows(
        self, needed: Sequence[str], known: Sequence[str], limit: int | None = None, seed: int | None = None
    ) -> Iterator[Row]:
        """Every row, or the first ``limit``, or with a seed a random ``limit`` of them in the order of the table.

        Args:
            needed: columns every row must have.
            known: further columns that will be looked at; of parquet and data sets no others are read.

        Raises:
            ValueError: a line cannot be read, or columns are missing; the message names those missing and found.
        """
        if isinstance(self.source, Path):
            yield from self._lines(needed, limit, seed)
            return
        self._check(self.name, needed, self.source.column_names)
        names = [name for name in self.source.column_names if name in needed or name in known]
        data = self.source.select_columns(names).with_format(None)
        chosen = kept(len(data), limit, seed)
        if chosen is not None:
            data = data.select(chosen)
        numbers = iter(range(len(data)) if chosen is None else chosen)
        for batch in data.iter(BATCH):
            for values in zip(*batch.values(), strict=True):
                yield f"{self.name}, row {next(numbers)}", dict(zip(batch, values, strict=True))

    def _lines(self, needed: Sequence[str], limit: int | None, seed: int | None) -> Iterator[Row]:
        count = 0 if limit is None or seed is None else sum(1 for _ in self._texts())
        chosen = set(kept(count, limit, seed) or range(count))
        for position, (place, line) in enumerate(self._texts()):
            if limit is not None and seed is None and position >= limit:
                return
            if chosen and position not in chosen:
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{place}: not JSON: {error.msg} at column {error.colno}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{place}: must be a JSON object, got {type(row).__name__}")
            self._check(place, needed, row)
            yield place, row

    def _texts(self) -> Iterator[tuple[str, str]]:
        path = self.source
        place = f"{self.name}, line 0"
        try:
            with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as f:
                for number, line in enumerate(f, 1):
                    place = f"{self.name}, line {number}"
                    if line.strip():
                        yield place, line
        except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.name}: cannot be read after {place.rpartition(', ')[2]}: {error}") from None

    def _check(self, place: str, needed: Sequence[str], found: Any) -> None:
        missing = [name for name in needed if name not in found]
        if missing:
            raise ValueError(
                f"{place}: must have the columns {', '.join(needed)}; missing {', '.join(missing)}, "
                f"found {', '.join(found) or 'none'}"
            )


def find(folder: Path, stem: str) -> Table | None:
    """The table called ``stem`` of a folder, if there is one.

    In order: ``stem.jsonl``, ``stem.jsonl.gz``, ``stem.parquet``, ``stem-*.parquet`` (shards), and ``stem/`` as
    ``Dataset.save_to_disk`` writes it.
    """
    for suffix in (".jsonl", ".jsonl.gz"):
        if (path := folder / f"{stem}{suffix}").is_file():
            return Table(str(path), path)
    shards = [folder / f"{stem}.parquet"] if (folder / f"{stem}.parquet").is_file() else []
    shards = shards or sorted(folder.glob(f"{stem}-*.parquet"))
    if shards:
        import datasets

        data = datasets.Dataset.from_parquet([str(path) for path in shards])
        return Table(str(shards[0]) if len(shards) == 1 else f"{folder}/{stem}-*.parquet", data)
    if (folder / stem / "state.json").is_file():
        import datasets

        return Table(str(folder / stem), datasets.load_from_disk(str(folder / stem)))
    return None


def at(source: str | os.PathLike[str], stem: str) -> Table:
    """The table in a file of one of these kinds, or the one called ``stem`` in a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(source)
    folder, name = (path, stem) if path.is_dir() else (path.parent, path.name)
    name = name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".parquet")
    table = find(folder, name)
    if table is None:
        raise FileNotFoundError(
            f"{path}: there is no table; expected .jsonl, .jsonl.gz or .parquet, or a folder with {stem}"
        )
    return table


def on_hub(source: str, config: str, split: str) -> Table:
    """A split of a data set on the hub, or of a folder that is a copy of one."""
    import datasets

    return Table(f"{source} {config} {split}", datasets.load_dataset(source, config, split=split))


def stems(folder: Path) -> list[str]:
    """The names of the tables that `find` would find."""
    names = {path.name.split(".jsonl")[0] for path in folder.glob("*.jsonl*")}
    names |= {path.stem.split("-0")[0] for path in folder.glob("*.parquet")}
    return sorted(names | {path.parent.name for path in folder.glob("*/state.json")})


def kept(n: int, limit: int | None, seed: int | None) -> list[int] | None:
    """Which of n rows to keep, ascending: the first ``limit``, or a random choice with a seed; None: all."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if limit is None or limit >= n:
        return None
    if seed is None:
        return list(range(limit))
    return sorted(np.random.default_rng(seed).permutation(n)[:limit].tolist())
