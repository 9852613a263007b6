"""Indexes as a stranger might make them: small ones whose numbers, in the manifest and in arrays, are changed at
random, with the right checksums. Whatever lateint does with one, it ends in an answer or in an error that it announces.
"""

import contextlib
import copy
import json
import os
import random
import resource
import shutil
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from lateint import FieldError, FormatError, Index, UnknownIdError
from lateint.disk import store

ALLOWED = 64 << 20  # bytes that a process may take besides what it has: an index here is of some 20 kB
VALUES = [None, True, -1, 0, 1, 2, 7, 2**31, 2**32 - 1, 2**48, 2**63, 2**64, 10**30, 1.5, 1e308, float("nan"),
          float("inf"), "", "x", "..", "/", "segments", "\ud800", "a/b", [], [1], {}, [[]], {"a": 1}]  # fmt: skip


METADATA = [
    {"s": f"v{n % 3}", "n": [n, -300, 2**40, 1.5, True, None, "x", "y"][n], "l": [n, "a", 2.5], "o": {"d": "y"}}
    for n in range(7)
] + [None]
TEXTS = [f"\u00e9 {n} more" + n * 100 * " often" if n % 3 else None for n in range(8)]
SPARSE = [{"a": 1.5, f"{n}": 0.25} if n % 3 else None for n in range(8)]
CONDITIONS = [{"s": "v1"}, {"n": {"$gt": 0}}, {"l": {"$contains": "a"}}, {"s": {"$like": "%1"}}, {"o.d": {"$ne": "y"}},
              {"s": {"$in": ["v0", "v2", "a", "b", "c", "d"]}}, {"n": {"$exists": False}}]  # fmt: skip


def tokens(rng, lengths, dim=12):
    rows = rng.standard_normal((sum(lengths), dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def templates(folder):
    """Four indexes, each as the bytes of its files: with ids of both kinds, without scales, and after changes."""
    rng, lengths = np.random.default_rng(0), [3, 0, 5, 2, 7, 4, 1, 6]
    made = []
    for i, (nbits, ids) in enumerate([(4, None), (2, "strings"), (8, "strings"), (4, [5, 3, 9, 1, 7, 2, 8, 0])]):
        ids = [f"\u00e9{n}" for n in range(8)] if ids == "strings" else ids
        given = {"texts": TEXTS, "metadata": METADATA, "sparse": SPARSE, "text_search": True} if i % 2 else {}
        settings = {**given, "ids": ids, "nbits": nbits, "ncentroids": 5, "allow_empty": True, "progress": False}
        index = Index.build(tokens(rng, lengths), folder / f"{i}", lengths=lengths, **settings)
        if i == 3:
            index.add([tokens(rng, [3]), tokens(rng, [4])])
            index.delete([5])
            index.add([tokens(rng, [2])])
            index.calibrate(k=(2, 3))
        if i == 1:
            index.add([tokens(rng, [3])], ids=["more"], texts=["more"], metadata=[{"s": "more", "n": 7}])
        paths = [path for path in (folder / f"{i}").rglob("*") if path.is_file()]
        made.append({path.relative_to(folder / f"{i}").as_posix(): path.read_bytes() for path in paths})
    return made


def variant(rng, files):
    """The bytes of an index with some numbers changed, in the manifest, in arrays, or in both."""
    files, manifest = dict(files), json.loads(files["index.json"])
    where = rng.random()
    if where > 0.4:
        for _ in range(rng.choice([1, 1, 2, 5])):
            _change_array(rng, files, manifest)
    if where < 0.5:
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            _change_manifest(rng, manifest)
    files["index.json"] = json.dumps(manifest).encode()
    return files


def _change_array(rng, files, manifest):
    images = [
        (name, image)
        for name, file in manifest["files"].items()
        for image in (file["arrays"].values() if "arrays" in file else [file])
        if image["bytes"] > 128
    ]
    name, image = rng.choice(images)
    data, first, size = bytearray(files[name]), image.get("offset", 0), int(image["dtype"][2:])
    place = first + 128 + size * rng.randrange((image["bytes"] - 128) // size)
    most = 1 << 8 * size
    number = rng.choice([0, 1, 2, 255, most - 1, most // 2, rng.randrange(most)]) % most
    data[place : place + size] = number.to_bytes(size, "little")
    files[name] = bytes(data)
    image["crc32"] = zlib.crc32(files[name][first : first + image["bytes"]])


def _change_manifest(rng, manifest):
    places = [place for place in _places(manifest) if place]
    *way, key = rng.choice(places)
    holder = _at(manifest, way)
    how = rng.random()
    if how < 0.2:
        del holder[key]
    elif how < 0.3 and isinstance(holder, list):
        holder.append(holder[key])
    elif how < 0.5:
        holder[key] = copy.deepcopy(_at(manifest, rng.choice(places)))
    elif how < 0.6 and isinstance(holder[key], int):
        holder[key] += rng.choice([-7, -1, 1, 7])
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))


def _places(values, place=()):
    yield place
    inside = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in inside:
        yield from _places(value, (*place, key))


def _at(values, place):
    for key in place:
        values = values[key]
    return values


def use(rng, folder):
    """Opens an index and does something with it; returns what came of it."""
    small = rng.random() < 0.5
    store.ALWAYS_CHECKED, store.ALWAYS_CHECKED_WITHIN = (1 << 20, 1 << 14) if small else (0, 0)
    try:
        index = Index.open(folder, verify=rng.random() < 0.3)
    except FormatError:
        return "refused"
    try:
        query, few = tokens(np.random.default_rng(0), [3]), index.ids[:4]
        ways = [
            lambda: index.search([query, query[:1]], 3),
            lambda: index.search(query, 9, nprobe=1),
            lambda: index.search(query, 9, exhaustive=True),
            lambda: index.search(query, 2, subset=few),
            lambda: _promised(index, query),
            lambda: index.get(few),
            lambda: index.search(None, 5, text=["\u00e9 often", "more 1 2 4", "nothing"]),
            lambda: index.search(query, 5, text="more often 1"),
            lambda: index.search(query, 5, text="more", rerank=3),
            lambda: index.search(None, 5, sparse=[{"a": 1.0, "1": 2.0}, {"4": 1}]),
            lambda: index.search(query, 5, sparse={"a": 1.0}),
            lambda: [index.documents[name] for name in index.documents.fields],
            lambda: [_filtered(index, query, condition) for condition in CONDITIONS],
            lambda: index.update(few[:1], metadata=[{"s": "new"}] * len(few[:1])) if len(few) else None,
            lambda: index.update(few[:1], sparse=[{"a": 1}] * len(few[:1])) if len(few) else None,
            lambda: index.update(few[:1], texts=["new"] * len(few[:1])) if len(few) else None,
            lambda: index.rerank(query, few),
            lambda: [index.reconstruct(one) for one in few],
            lambda: index.save(folder.with_name("saved"), overwrite=True),
            lambda: index.update(few[:1], [query] * len(few[:1])) if len(few) else None,
            lambda: index.delete(few[:2]),
            lambda: index.compact(full=True),
            lambda: Index.verify(folder),
        ]
        for way in rng.sample(ways, 4):
            way()
    except (FormatError, UnknownIdError):
        return "damage found"
    except ImportError as error:  # the manifest asks for it
        if "PyStemmer" not in str(error):
            raise
        return "damage found"
    except ValueError as error:
        if not str(error).startswith(
            ("text needs an index whose", "sparse needs an index whose", "stem must be one of")
        ):
            raise
        return "damage found"
    except RuntimeError as error:
        if "the index is damaged" not in str(error):
            raise
        return "damage found"
    except FileExistsError as error:  # of the number of the next segment, which it says is free
        if "nothing has changed" not in str(error):
            raise
        return "damage found"
    return "used"


def _promised(index, query):
    with contextlib.suppress(ValueError):  # nothing can be known of recall
        index.search(query, 2, recall=0.6)


def _filtered(index, query, condition):
    with contextlib.suppress(FieldError):  # the index has no metadata, or says that it has none
        index.search(query, 3, filter=condition)


def run(folder, seed, count, report=lambda number: None):
    """Makes and uses so many variants; returns how often what came of them. Errors that nobody announced are raised.

    For a process of its own: its memory is bounded, and nothing is flushed to the disk.
    """
    os.fsync = lambda descriptor: None
    rng, made, outcomes = random.Random(seed), templates(folder), Counter()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ALLOWED, limits[1]))
    try:
        for number in range(count):
            report(number)
            work = folder / "variant"
            shutil.rmtree(work, ignore_errors=True)
            for name, data in variant(rng, rng.choice(made)).items():
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                (work / name).write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcomes[use(rng, work)] += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return outcomes
