"""With a codec, documents that can be read only once pass by: nothing of them is kept, and the index is the same."""

import tracemalloc

import numpy as np
import pytest

from lateint import Index, Ragged, train_codec
from lateint.indexing import builder, streaming


@pytest.fixture(scope="module")
def codec(collection):
    return train_codec(collection, progress=False)


@pytest.fixture(params=[1, 500, 1000, 1 << 22])
def segment(request, monkeypatch):
    monkeypatch.setattr(streaming, "SEGMENT", request.param)
    monkeypatch.setattr(builder, "CHUNK", 300)
    return request.param


def pairs(collection):
    """(tokens, lengths) of two documents at a time, in memory that is used again."""
    memory = np.empty((1000, collection.dim), np.float32)
    for first in range(0, len(collection), 2):
        some = [collection[i] for i in range(first, min(first + 2, len(collection)))]
        rows = np.concatenate(some)
        memory[: len(rows)] = rows
        yield memory[: len(rows)], [len(one) for one in some]


@pytest.mark.parametrize("form", ["documents", "pairs", "Ragged"])
def test_an_iterator_read_once_gives_the_same_index(collection, queries, codec, segment, tmp_path, form):
    forms = {"documents": iter(list(collection)), "pairs": pairs(collection), "Ragged": iter([collection])}
    index = Index.build(forms[form], tmp_path / "index", codec=codec, ids=[f"d{i}" for i in range(len(collection))])
    expected = Index.build(collection, codec=codec, ids=[f"d{i}" for i in range(len(collection))], progress=False)
    assert index.stats()["segments"] == len(builder.cut_into_segments(collection.lengths, segment))
    assert not Index.verify(tmp_path / "index").problems
    for settings in ({}, {"exhaustive": True}, {"nprobe": 2, "candidates": 20}):
        for query in queries[:5]:
            assert list(index.search(query, 10, **settings)) == list(expected.search(query, 10, **settings))
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("sizes", [[0, 0, 500, 1, 400, 0], [500, 0, 0, 700, 0, 3, 2], [300] * 5, [0, 1, 0]])
def test_long_and_empty_documents(clustered, codec, segment, sizes):
    collection = clustered(sizes)
    index = Index.build(iter(list(collection)), codec=codec, allow_empty=True)
    expected = Index.build(collection, codec=codec, allow_empty=True, progress=False)
    for i in range(len(sizes)):
        np.testing.assert_array_equal(index.reconstruct(i), expected.reconstruct(i))
    cuts = builder.cut_into_segments(np.array(sizes), segment)
    assert index.stats()["segments"] == len(cuts)


def test_8_bits_and_a_device(collection, queries, segment):
    pytest.importorskip("torch")
    codec = train_codec(collection, nbits=8, progress=False)
    expected = Index.build(collection, codec=codec, progress=False)
    for device in (None, "torch:cpu"):
        index = Index.build(iter(list(collection)), codec=codec, device=device)
        assert list(index.search(queries[0], 10)) == list(expected.search(queries[0], 10))


def test_tokens_are_not_kept(codec, clustered):
    """Memory is that of the codes."""
    one = clustered([50])

    def documents():
        for _ in range(4000):
            yield one.tokens.copy()

    Index.build(iter([one.tokens]), codec=codec)
    tracemalloc.start()
    index = Index.build(documents(), codec=codec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert index.tokens == 200_000 and peak < 200_000 * 32 * 4 * 0.9 + (1 << 15) * 32 * 16


def test_what_is_refused(collection, codec, clustered, tmp_path):
    documents = list(collection)
    broken = documents[7].copy()
    broken[-1, 0] = np.inf
    with pytest.raises(ValueError, match=rf"token {len(broken) - 1} of document 9 holds a NaN or an infinity"):
        Index.build(iter([*documents[:9], broken]), tmp_path / "index", codec=codec)
    with pytest.raises(ValueError, match="dim of the codec, 32, got 16 in document 1"):
        Index.build(iter([documents[0], clustered([5], dim=16).tokens]), tmp_path / "index", codec=codec)
    with pytest.raises(ValueError, match="document 1 has no tokens; pass allow_empty=True"):
        Index.build(iter([documents[0], documents[0][:0]]), tmp_path / "index", codec=codec)
    with pytest.raises(ValueError, match="at least one token, got 0 documents without any"):
        Index.build(iter([]), tmp_path / "index", codec=codec)
    with pytest.raises(ValueError, match="ids must name each document once, got 1 ids for 2 documents"):
        Index.build(iter(documents[:2]), tmp_path / "index", ids=["a"], codec=codec)
    with pytest.raises(ValueError, match=r"max_ram must be at least [\d,]+ bytes for an iterator that runs only once"):
        Index.build(iter(documents), tmp_path / "index", codec=codec, max_ram=1000)
    assert not list(tmp_path.iterdir())
    assert isinstance(collection, Ragged)
