"""Rows of a table, wherever they lie: JSON lines, parquet, a data set saved by `datasets`, or one on the hub.

Every row comes with its place ("FILE, line 3"), so that whoever finds a mistake in it can say where, and with a key, by
which it is read again. Tables stay on disk: parquet and data sets are mapped, JSON lines are read where they lie.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from lateint.disk import whole

BATCH = 1000  # rows of a data set read together
READ = 4096  # bytes of a line read together
T = TypeVar("T")


class Row(NamedTuple):
    """A row, where it is for people, and where it is for `Table.at`."""

    place: str
    key: int
    columns: Mapping[str, Any]


class Table:
    """Rows by key.

    Attributes:
        name: what messages call it.
    """

    name: str

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
        raise NotImplementedError

    def at(self, key: int, names: Sequence[str]) -> Mapping[str, Any]:
        """One row; of parquet and data sets only these columns, as far as there are such."""
        raise NotImplementedError

    def place(self, key: int) -> str:
        """What `Row.place` was."""
        raise NotImplementedError

    def _check(self, place: str, needed: Sequence[str], found: Any) -> None:
        missing = [name for name in needed if name not in found]
        if missing:
            raise ValueError(
                f"{place}: must have the columns {', '.join(needed)}; missing {', '.join(missing)}, "
                f"found {', '.join(found) or 'none'}"
            )


class Lines(Table):
    """A file of JSON lines, gzipped or not; keys are where lines begin.

    A gzipped one is unpacked into a temporary file when a row is read again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._file: Any = None

    def rows(
        self, needed: Sequence[str], known: Sequence[str], limit: int | None = None, seed: int | None = None
    ) -> Iterator[Row]:
        count = 0 if limit is None or seed is None else sum(1 for _ in self._texts())
        chosen = set(kept(count, limit, seed) or range(count))
        for position, (place, key, line) in enumerate(self._texts()):
            if limit is not None and seed is None and position >= limit:
                return
            if chosen and position not in chosen:
                continue
            row = self._parsed(line, place)
            self._check(place, needed, row)
            yield Row(place, key, row)

    def at(self, key: int, names: Sequence[str]) -> Mapping[str, Any]:
        found: list[bytes] = []
        descriptor = self._open().fileno()
        while not found or not found[-1].endswith(b"\n"):
            more = os.pread(descriptor, READ, key + READ * len(found))
            end = more.find(b"\n") + 1
            found.append(more[: end or len(more)])
            if not end and len(more) < READ:
                break
        try:
            row: dict[str, Any] = json.loads(b"".join(found))
        except ValueError:
            raise ValueError(f"{self.name} was changed after it had been opened: no line begins at {key:,}") from None
        return row

    def place(self, key: int) -> str:
        return next(place for place, start, _ in self._texts() if start == key)

    def _texts(self) -> Iterator[tuple[str, int, str]]:
        place, key = f"{self.name}, line 0", 0
        try:
            with gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    place_before, place = place, f"{self.name}, line {number}"
                    if line.strip():
                        try:
                            yield place, key, line.decode()
                        except UnicodeDecodeError:
                            place = place_before
                            raise
                    key += len(line)
        except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.name}: cannot be read after {place.rpartition(', ')[2]}: {error}") from None

    def _parsed(self, line: str, place: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place}: not JSON: {error.msg} at column {error.colno}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place}: must be a JSON object, got {type(row).__name__}")
        return row

    def _open(self) -> Any:
        """Kept open, and read at places, never from where it stands: processes that fork may share it."""
        if self._file is None:
            if self.path.suffix == ".gz":
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the table is there
                with gzip.open(self.path) as packed:
                    shutil.copyfileobj(packed, self._file)
                self._file.flush()
            else:
                self._file = self.path.open("rb")
            weakref.finalize(self, self._file.close)
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}


class Mapped(Table):
    """A `datasets.Dataset`, mapped from disk; keys are its rows' numbers."""

    def __init__(self, name: str, data: Any) -> None:
        self.name, self.data = name, data

    def rows(
        self, needed: Sequence[str], known: Sequence[str], limit: int | None = None, seed: int | None = None
    ) -> Iterator[Row]:
        self._check(self.name, needed, self.data.column_names)
        names = [name for name in self.data.column_names if name in needed or name in known]
        if not names:
            some = ", ".join(dict.fromkeys(known))
            raise ValueError(f"{self.name}: must have columns among {some}, found {', '.join(self.data.column_names)}")
        chosen = kept(len(self.data), limit, seed)
        rows: Iterator[tuple[int, dict[str, Any]]]
        if chosen is None:
            rows = enumerate(row for batch in self._batches() for row in batch.select(names).to_pylist())
        else:
            rows = ((number, dict(self.at(number, names))) for number in chosen)
        for number, row in rows:
            yield Row(self.place(number), number, row)

    def at(self, key: int, names: Sequence[str]) -> Mapping[str, Any]:
        table = self.data.data
        return {name: table.column(name)[key].as_py() for name in names if name in table.column_names}

    def place(self, key: int) -> str:
        return f"{self.name}, row {key}"

    def _batches(self) -> Iterator[Any]:
        """All rows, read from the files and not from where they are mapped: what is read there stays in memory."""
        import pyarrow

        files = [one["filename"] for one in self.data.cache_files]
        if not files:
            yield from self.data.data.table.to_batches(BATCH)
        for name in files:
            with pyarrow.OSFile(name) as file, pyarrow.ipc.open_stream(file) as stream:
                yield from stream


class Column(Sequence[T], Generic[T]):
    """What is read of each row, when it is asked for.

    Args:
        table: where rows are.
        keys: ``[n]`` integers, of the rows.
        names: the columns that ``value`` needs.
        value: of a row's columns and its key; a function of a module, for other processes get it by name.
    """

    def __init__(
        self,
        table: Table,
        keys: NDArray[Any],
        names: Sequence[str],
        value: Callable[[Mapping[str, Any]], T],
    ) -> None:
        self.table, self.keys, self.names, self.value = table, keys, names, value

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, position: int) -> T: ...

    @overload
    def __getitem__(self, position: slice) -> Column[T]: ...

    def __getitem__(self, position: int | slice) -> T | Column[T]:
        if isinstance(position, slice):
            return Column(self.table, self.keys[position], self.names, self.value)
        return self.value(self.table.at(int(self.keys[position]), self.names))

    def __iter__(self) -> Iterator[T]:
        return (self.value(self.table.at(key, self.names)) for key in map(int, self.keys))

    def __eq__(self, other: object) -> bool:
        """As a list of the same values would be."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented
        return all(own == given for own, given in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def find(folder: Path, stem: str) -> Table | None:
    """The table called ``stem`` of a folder, if there is one.

    In order: ``stem.jsonl``, ``stem.jsonl.gz``, ``stem.parquet``, ``stem-*.parquet`` (shards), and ``stem/`` as
    ``Dataset.save_to_disk`` writes it.
    """
    for suffix in (".jsonl", ".jsonl.gz"):
        if (path := folder / f"{stem}{suffix}").is_file():
            return Lines(path)
    shards = [folder / f"{stem}.parquet"] if (folder / f"{stem}.parquet").is_file() else []
    shards = shards or sorted(folder.glob(f"{stem}-*.parquet"))
    if shards:
        import datasets

        data = datasets.concatenate_datasets([datasets.Dataset.from_file(str(_unpacked(path))) for path in shards])
        return Mapped(str(shards[0]) if len(shards) == 1 else f"{folder}/{stem}-*.parquet", data)
    if (folder / stem / "state.json").is_file():
        import datasets

        return Mapped(str(folder / stem), datasets.load_from_disk(str(folder / stem)))
    return None


def _unpacked(path: Path) -> Path:
    """A parquet file as one that can be mapped, in the cache of `datasets`; made once, a few rows at a time.

    `datasets` itself reads whole row groups, which may have a million rows.
    """
    import datasets
    from filelock import FileLock
    from pyarrow import parquet

    about = path.stat()
    name = blake2b(f"{path.absolute()}\0{about.st_size}\0{about.st_mtime_ns}".encode(), digest_size=16).hexdigest()
    target = Path(datasets.config.HF_DATASETS_CACHE) / "preflmr" / f"{name}.arrow"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_file():
            with whole.file(target) as part, parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                _write(file, part)
    return target


def _write(file: Any, path: Path) -> None:
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, file.schema_arrow) as stream:
        for batch in file.iter_batches(BATCH, use_threads=False):
            stream.write_batch(batch)


def compact(keys: array[int]) -> NDArray[Any]:
    """Keys of rows as an array, of four bytes each where that is enough."""
    found = np.frombuffer(keys, np.int64)
    return found.astype(np.uint32) if len(found) and int(found.max()) < 2**32 else found


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

    return Mapped(f"{source} {config} {split}", datasets.load_dataset(source, config, split=split))


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
