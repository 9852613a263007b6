"""What an index is like to use from Python: items, membership, pickles, types."""

import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from lateint import Hit, Index, UnknownIdError


def test_hits_are_a_sequence_of_plain_pairs(index, queries):
    hits = index.search(queries[0], k=4)
    assert [hits[i] for i in range(4)] == list(hits) == [tuple(hit) for hit in hits]
    assert hits[0] == Hit(hits[0].id, hits[0].score) and type(hits[0].id) is int and type(hits[0].score) is float
    assert hits[-1] == list(hits)[-1] and hits[-4] == hits[0]
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            hits[beyond]
    assert repr(hits).startswith(f"Hits({hits[0].id!r}: ")


def test_membership(collection, index):
    named = Index.build(collection, ids=[f"d{i}" for i in range(len(collection))], progress=False)
    assert "d3" in named and "x" not in named and 3 not in named and None not in named
    assert type(named.search(collection[3], k=1)[0].id) is str
    assert 3 in index and np.int64(3) in index and len(index) not in index and "d3" not in index
    named.delete(["d3"])
    assert "d3" not in named


def test_an_index_is_pickled_by_its_path(saved, index, queries):
    again = pickle.loads(pickle.dumps(Index.open(saved)))
    assert again.path == saved and list(again.search(queries[0])) == list(index.search(queries[0]))
    with pytest.raises(TypeError, match="an index in memory cannot be pickled: save it"):
        pickle.dumps(index)


def test_rerank_of_a_batch(index, queries):
    lists = [[i, i + 1, 7] for i in range(len(queries))]
    for hits, query, ids in zip(index.rerank(queries, lists, k=2), queries, lists, strict=True):
        assert list(hits) == list(index.rerank(query, ids, k=2))
    with pytest.raises(ValueError, match="ids must be one list for each query, got 1 for 12 queries"):
        index.rerank(queries, [[1]])
    with pytest.raises(UnknownIdError, match="ids of query 1 holds 5000"):
        index.rerank(queries[:2], [[1], [5000]])


def test_types_of_results(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
        import numpy as np
        from lateint import Index
        def use(index: Index, one: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
            reveal_type(index.search("text"))
            reveal_type(index.search(["text", "text"]))
            reveal_type(index.search(one))
            reveal_type(index.search([one, one], k=3))
            reveal_type(index.rerank(one, [1, 2]))
            reveal_type(index.search(one)[0].score)
        """)
    )
    command = [sys.executable, "-m", "mypy", "--no-incremental", str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    hits, many = '"lateint.retrieval.hits.Hits"', '"list[lateint.retrieval.hits.Hits]"'
    found = [line.partition("Revealed type is ")[2].replace("builtins.", "") for line in done.stdout.splitlines()]
    assert [line for line in found if line] == [hits, many, hits, many, hits, '"float"'], done.stdout
