"""Variants of an index on disk: files and manifest damaged, checksums mostly right."""

from __future__ import annotations

import copy
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hostile import CONDITIONS
from numpy.random import Generator

from benchmarks.fuzz.damage import Array, damaged
from benchmarks.fuzz.outcomes import Outcome, attempt, worst
from lateint import Index
from lateint.disk.files import HEADER_BYTES, header

MANIFEST = "index.json"
ODD = [
    0,
    1,
    -1,
    7,
    2**31,
    2**63,
    1e300,
    "",
    "../../x",
    "segments/000000",
    None,
    True,
    [],
    {},
    [[]],
    "int64",
    float("nan"),
]


class Base:
    """An intact index, and a folder in which variants of it are made."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(source, folder)
        self.manifest = json.loads((folder / MANIFEST).read_text())
        self.files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.bytes = sum(map(len, self.files.values()))

    def restore(self) -> None:
        """Undoes the last variant."""
        for path, data in self.files.items():
            if not path.is_file() or path.read_bytes() != data:
                path.unlink(missing_ok=True)
                path.write_bytes(data)

    def write(self, manifest: Any, files: dict[str, bytes]) -> None:
        """Files by their names in the manifest, and the manifest."""
        for name, data in {**files, MANIFEST: json.dumps(manifest).encode()}.items():
            (self.folder / name).unlink()  # and not changed in place, where it may be mapped still
            (self.folder / name).write_bytes(data)


def variant(rng: Generator, base: Base) -> None:
    """Damages the folder of a base."""
    manifest = copy.deepcopy(base.manifest)
    files: dict[str, bytes] = {}
    for _ in range(rng.integers(1, 4)):
        names = list(manifest["files"])
        name = names[rng.integers(len(names))]
        kind = rng.random()
        if kind < 0.6:
            files[name] = _arrays(rng, base, manifest, name)
        elif kind < 0.75:
            files[name] = _bytes(rng, base, manifest, name)
        elif kind < 0.8:
            files[name] = base.files[base.folder / names[rng.integers(len(names))]]  # with the checksum of another
        else:
            _values(rng, manifest)
            break  # its files may be gone
    base.write(manifest, files)


def _arrays(rng: Generator, base: Base, manifest: Any, name: str) -> bytes:
    """A file with one of its arrays damaged, and an entry that fits."""
    entry = manifest["files"][name]
    entries = list(entry["arrays"].values()) if "arrays" in entry else [entry]
    data = base.files[base.folder / name]
    arrays = [_array(data, one) for one in base_entries(base, name)]
    place = int(rng.integers(len(arrays)))
    arrays[place] = damaged(rng, arrays[place], arrays)
    out = bytearray()
    for one, array in zip(entries, arrays, strict=True):
        out += bytes(-len(out) % 64)
        image = header(array.dtype, array.shape) + array.tobytes()
        one.update(shape=list(array.shape), bytes=len(image), crc32=zlib.crc32(image))
        if "arrays" in entry and len(out):
            one["offset"] = len(out)
        out += image
    if "arrays" in entry:
        entry["bytes"] = len(out)
    return bytes(out)


def base_entries(base: Base, name: str) -> list[dict[str, Any]]:
    """Of the intact file."""
    entry = base.manifest["files"][name]
    return list(entry["arrays"].values()) if "arrays" in entry else [entry]


def _array(data: bytes, entry: dict[str, Any]) -> Array:
    first = entry.get("offset", 0) + HEADER_BYTES
    count = int(np.prod(entry["shape"], dtype=np.int64))
    return np.frombuffer(data, entry["dtype"], count, first).reshape(entry["shape"])


def _bytes(rng: Generator, base: Base, manifest: Any, name: str) -> bytes:
    """A file with bits flipped, header included, or cut; its length and checksum are right half of the time."""
    data = bytearray(base.files[base.folder / name])
    for _ in range(rng.integers(9)):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    if rng.random() < 0.3:
        data = data[: rng.integers(len(data) + 1)]
    entry = manifest["files"][name]
    if rng.integers(2) and "arrays" not in entry:
        entry.update(bytes=len(data), crc32=zlib.crc32(data))
    return bytes(data)


def _values(rng: Generator, manifest: Any) -> None:
    """A manifest with one of its values changed or gone."""
    place = manifest
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[rng.integers(len(keys))]
        if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.2:
            break
        place = place[key]
    if rng.random() < 0.2:
        del place[key]
    elif isinstance(place[key], int) and rng.random() < 0.5:
        place[key] += int(rng.choice([-1, 1, 2**20, 2**40]))
    else:
        place[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])


def run(rng: Generator, base: Base, verify: bool) -> Outcome:
    """Opens a variant and asks it everything."""
    variant(rng, base)
    opened: list[Index] = []
    outcome = attempt("opening", lambda: opened.append(Index.open(base.folder, verify=verify)))
    outcomes = [outcome]
    if opened:
        index = opened[0]
        queries = np.random.default_rng(0).standard_normal((2, 3, index.dim)).astype(np.float32)
        outcomes += [attempt("searching", call) for call in _calls(rng, index, queries)]
    if rng.random() < 0.05:
        outcomes.append(attempt("opening", lambda: Index.verify(base.folder)))
    base.restore()
    return worst(outcomes)


def _calls(rng: Generator, index: Index, queries: Array) -> list[Any]:
    known: list[Any] = []

    def find() -> None:
        known.extend(index.search(queries[0], 3, exhaustive=True).ids.tolist())

    condition, words = CONDITIONS[rng.integers(len(CONDITIONS))], ["\u00e9 often", "more 1 2 4", "nothing"]
    calls = [
        lambda: index.search(queries, int(rng.choice([1, 5, 1000]))),
        find,
        lambda: [index.reconstruct(one) for one in known],
        lambda: known and index.rerank(queries[0], known),
        lambda: known and index.explain(queries[0], known[0]),
        lambda: known and index.search(queries[1], 3, subset=known),
        lambda: index.stats(),
    ]
    groups = {group for segment in index._snapshot.manifest.segments for group in segment.groups}
    if index._snapshot.manifest.analyzer is not None:
        calls += [
            lambda: index.search(None, 5, text=words),
            lambda: index.search(queries, 5, text=words[:2]),
            lambda: index.search(queries[0], 5, text="more", rerank=3),
        ]
    if "sparse" in groups:
        calls += [
            lambda: index.search(None, 5, sparse=[{"a": 1.0, "1": 2.0}, {"4": 1}]),
            lambda: index.search(queries[0], 5, sparse={"a": 1.0}),
        ]
    if groups & {"texts", "metadata"}:
        calls += [
            lambda: index.get(known),
            lambda: [index.documents[name] for name in index.documents.fields],
            lambda: index.search(queries[0], 3, filter=condition),
            lambda: index.count(condition),
        ]
    return calls
