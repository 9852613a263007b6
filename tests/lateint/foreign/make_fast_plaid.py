"""Makes fast-plaid.tar.xz with fast-plaid 1.7:  PYTHON make_fast_plaid.py

benchmarks/rivals/install.sh makes the environment.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from collection import archive, documents, keep, queries
from fast_plaid.search import FastPlaid

torch.set_num_threads(1)


def tensors(count, seed):
    return [torch.from_numpy(tokens) for tokens in documents(count, seed)]


def hits(folder):
    """Every document of each query, scored on its codes."""
    lists = len(np.load(folder / "centroids.npy"))
    index = FastPlaid(str(folder), device="cpu")
    return index.search(
        torch.from_numpy(queries()), top_k=1000, n_full_scores=4096, n_ivf_probe=lists, show_progress=False
    )


def fields(first, count):
    return [
        {"lang": "de" if i % 3 else "en", "year": 2000 + i, "note": "a 'b' \u00e9"} for i in range(first, first + count)
    ]


def main():
    with tempfile.TemporaryDirectory() as room, archive("fast-plaid") as into:

        def made(name, nbits, start_from_scratch=0, **settings):
            folder = Path(room) / name
            index = FastPlaid(str(folder), device="cpu")
            index.create(tensors(40, 0), nbits=nbits, seed=1, start_from_scratch=start_from_scratch, **settings)
            return folder, index

        for nbits in (1, 2, 4, 8):
            folder, _ = made(f"nbits-{nbits}", nbits)
            keep(into, folder.name, folder, hits(folder))
        folder, index = made("changed", 4, 1000, metadata=fields(0, 40))
        index.update(tensors(12, 1), metadata=fields(40, 12), start_from_scratch=0, buffer_size=1)
        keep(into, "updated", folder, hits(folder))
        index.delete([0, 5, 45])
        keep(into, "deleted", folder, hits(folder), without=("embeddings.npy",))
        os.environ["FAST_PLAID_KEEP_SHARDS"] = "1"  # the layout before 1.7
        folder, index = made("shards", 4, batch_size=15)
        index.delete([1])
        keep(into, folder.name, folder, hits(folder), without=("merged_codes.npy", "merged_residuals.npy"))


if __name__ == "__main__":
    main()
