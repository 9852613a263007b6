"""Synthetic collections: unit tokens around a few centres, as embeddings are, without any model."""

import numpy as np
import pytest
from histories import numbered

from lateint import Index
from lateint_kernels import Ragged


@pytest.fixture(scope="session")
def clustered():
    """``clustered(lengths, dim, seed)``: documents of unit tokens, as Ragged."""

    def make(lengths, dim=32, seed=0, clusters=25, noise=0.5):
        rng = np.random.default_rng(seed)
        centres = np.random.default_rng(1).standard_normal((clusters, dim))
        tokens = centres[rng.integers(0, clusters, sum(lengths))]
        tokens = tokens + noise * rng.standard_normal((sum(lengths), dim))
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        return Ragged.from_lengths(tokens.astype(np.float32), lengths, allow_empty=True)

    return make


@pytest.fixture(scope="session")
def lengths():
    """Documents of very different lengths."""
    return [1, 15, 16, 17, 63, 64, 65, 300, *np.random.default_rng(0).integers(1, 40, 150).tolist()]


@pytest.fixture(scope="session")
def collection(clustered, lengths):
    return clustered(lengths)


@pytest.fixture(scope="session")
def queries(clustered):
    """Twelve queries of different lengths."""
    return list(clustered([1, 15, 16, 17, 33, 5, 5, 5, 5, 5, 5, 100], seed=3))


@pytest.fixture(scope="session")
def index(collection):
    """Of `collection`, in memory, 4 bits, ids that are positions."""
    return Index.build(collection, progress=False)


@pytest.fixture(scope="session")
def saved(index, tmp_path_factory):
    """`index` as a folder, not to be changed."""
    path = tmp_path_factory.mktemp("saved") / "index"
    index.save(path)
    return path


@pytest.fixture(params=["memory", "disk"])
def living(request, tmp_path):
    """An index of twenty documents, in memory and on disk, that a test may change."""
    path = None if request.param == "memory" else tmp_path / "index"
    return Index.build(list(numbered().values()), path, text_search=True, progress=False, ncentroids=5)
