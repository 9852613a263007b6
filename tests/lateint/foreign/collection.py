"""The documents and queries that foreign indexes are made of, and how such indexes are kept: an archive a library."""

import io
import tarfile
from pathlib import Path

import numpy as np

DIM, TOPICS = 32, 40
HERE = Path(__file__).parent


def documents(count, seed):
    """Tokens of each document about a few topics, of length 1: float32 ``[Ld, dim]``, 3 to 9 tokens."""
    topics = np.random.default_rng(7).standard_normal((TOPICS, DIM))
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = topics[rng.integers(TOPICS, size=rng.integers(3, 10))] + 1.2 * rng.standard_normal(DIM)
        made.append(unit(tokens + 0.8 * rng.standard_normal(tokens.shape)))
    return made


def queries():
    """``[20, 5, dim]``: tokens of some documents, with noise."""
    rng = np.random.default_rng(8)
    return np.stack([unit(tokens[rng.integers(len(tokens), size=5)] + 0.1 * rng.standard_normal((5, DIM)))
                     for tokens in documents(40, 0)[::2]])  # fmt: skip


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def widened(rows, dim):
    """Rows followed by zeros up to ``dim``."""
    return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, dim - rows.shape[-1])])


def archive(name):
    """What `keep` puts folders into: NAME.tar.xz beside this file."""
    return tarfile.open(HERE / f"{name}.tar.xz", "w:xz")


def keep(into, name, folder, hits, *, without=()):
    """Keeps a folder, with the best 20 hits ``[(number, score), ...]`` of each query beside it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in without:
            _put(into, f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    for i, (kind, dtype) in enumerate((("numbers", "<u2"), ("scores", "<f4"))):
        image = io.BytesIO()
        np.save(image, np.array([[hit[i] for hit in of[:20]] for of in hits], dtype))
        _put(into, f"{name}.{kind}.npy", image.getvalue())


def _put(into, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    into.addfile(member, io.BytesIO(data))


def unpacked(name, room):
    """Puts what was kept of a library into a folder; returns the names of the indexes."""
    names = set()
    with tarfile.open(HERE / f"{name}.tar.xz") as kept:
        for member in kept:
            path = room / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kept.extractfile(member).read())
            names.add(member.name.split("/")[0])
    return sorted(one for one in names if not one.endswith(".npy"))
