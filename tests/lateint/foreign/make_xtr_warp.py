"""Makes xtr-warp.tar.xz with xtr-warp-rs 2.1:  PYTHON make_xtr_warp.py

benchmarks/rivals/install.sh makes the environment, to which duckdb and pyarrow are added for metadata.
The inverted copies of codes and residuals are left out of the archive.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from collection import archive, documents, keep, queries
from xtr_warp.search import XTRWarp

torch.set_num_threads(1)
INVERTED = ("codes.compacted.npy", "residuals.compacted.npy", "offsets.compacted.npy", "sizes.compacted.npy")


def tensors(count, seed):
    return [torch.from_numpy(tokens) for tokens in documents(count, seed)]


def hits(folder):
    """Every document of each query: all lists are looked into, however far they are, so that no score is made up."""
    lists = len(np.load(folder / "centroids.npy"))
    index = XTRWarp(str(folder)).load(device="cpu")
    return index.search(
        torch.from_numpy(queries()), 1000, nprobe=lists, bound=10**6, t_prime=10**6, max_candidates=10**6,
        centroid_score_threshold=-10.0, show_progress=False,
    )  # fmt: skip


def fields(first, count):
    return [{"lang": "de" if i % 3 else "en", "year": 2000 + i} for i in range(first, first + count)]


def main():
    with tempfile.TemporaryDirectory() as room, archive("xtr-warp") as into:

        def made(name, nbits, **settings):
            folder = Path(room) / name
            index = XTRWarp(str(folder))
            index.create(tensors(40, 0), device="cpu", nbits=nbits, num_partitions=64, show_progress=False, **settings)
            return folder, index.load(device="cpu")

        def kept(name, folder):
            keep(into, name, folder, hits(folder), without=INVERTED)

        for nbits in (2, 4):
            folder, _ = made(f"nbits-{nbits}", nbits, indexing_chunk_size=15)
            kept(folder.name, folder)
        folder, index = made("changed", 4, metadata=fields(0, 40))
        index.add(tensors(12, 1), show_progress=False, metadata=fields(40, 12))
        index.update([3, 45], tensors(2, 2), show_progress=False)
        kept("updated", folder)
        index.delete([0, 5, 45], compact_threshold=None)
        kept("deleted", folder)
        folder, index = made("compacted", 4)
        index.delete([0, 5, 39], compact_threshold=None)
        index.compact(show_progress=False)
        kept("compacted", folder)


if __name__ == "__main__":
    main()
