"""Runs of a collection against MaxSim written out in NumPy."""

import numpy as np
import pytest

from lateint import Index
from lateint.quality.evaluation import exact_run, index_run
from lateint_kernels import Ragged


@pytest.fixture
def collection():
    """Documents, their ids, queries and theirs."""
    rng = np.random.default_rng(0)

    def tokens(count):
        drawn = rng.standard_normal((count, 16)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    documents = [tokens(length) for length in rng.integers(5, 12, 40)]
    return documents, [f"d{i}" for i in range(40)], [tokens(length) for length in (3, 7, 4)], ["q0", "q1", "q2"]


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_exact_run_is_maxsim_of_everything(collection, batch):
    documents, doc_ids, queries, query_ids = collection
    run = exact_run(Ragged.pack(documents), doc_ids, queries, query_ids, k=5, batch=batch)
    assert list(run) == query_ids
    for query, found in zip(queries, run.values(), strict=True):
        scores = {
            name: float((query @ document.T).max(1).sum()) for name, document in zip(doc_ids, documents, strict=True)
        }
        assert list(found) == sorted(scores, key=scores.__getitem__, reverse=True)[:5]
        assert found == pytest.approx({name: scores[name] for name in found}, rel=1e-5)


def test_index_run_is_one_search_a_query(collection):
    documents, doc_ids, queries, query_ids = collection
    index = Index.build(documents, ids=doc_ids, nbits=8, progress=False)
    run, seconds = index_run(index, queries, query_ids, k=5, exhaustive=True)
    assert list(run) == query_ids and len(seconds) == 3
    for query_id, query in zip(query_ids, queries, strict=True):
        assert run[query_id] == dict(index.search(query, 5, exhaustive=True))
