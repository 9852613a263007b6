"""An index of pooled documents is the index of documents that were pooled before."""

import numpy as np
import pytest

from lateint import Index, Ragged, train_codec
from lateint.indexing import checkpoints, pooling
from lateint_kernels import pool


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("chunk", [1, 7, 250, 1 << 15])
@pytest.mark.parametrize("source", ["ragged", "list", "iterator", "iterable", "float16"])
def test_pooled_in_the_build_or_before(collection, tmp_path, monkeypatch, source, chunk):
    if source == "float16":
        collection = Ragged(collection.tokens.astype(np.float16), collection.offsets)
    before = pool(collection, 3)
    Index.build(before, tmp_path / "before", progress=False)
    monkeypatch.setattr(pooling, "CHUNK", chunk)
    documents = list(collection)
    given = {"list": documents, "iterator": iter(documents), "iterable": dict(enumerate(documents)).values()}
    index = Index.build(given.get(source, collection), tmp_path / "inside", pool=3, progress=False)
    assert index.tokens == len(before.tokens) == sum(-(-n // 3) for n in collection.lengths)
    assert contents(tmp_path / "inside") == contents(tmp_path / "before")
    in_memory = Index.build(collection, pool=3, progress=False)
    query = documents[20][:7].astype(np.float32)
    assert list(in_memory.search(query, 9, exhaustive=True)) == list(index.search(query, 9, exhaustive=True))


def test_documents_without_tokens(clustered):
    collection = clustered([0, 5, 0, 0, 3, 0])
    index = Index.build(collection, pool=2, allow_empty=True, progress=False)
    assert [len(index.reconstruct(i)) for i in range(6)] == [0, 3, 0, 0, 2, 0]


def test_a_codec_of_pooled_documents(collection, tmp_path):
    codec = train_codec(collection, pool=2, progress=False)
    assert codec.training.tokens == sum(-(-n // 2) for n in collection.lengths)
    Index.build(collection, tmp_path / "plain", pool=2, progress=False)
    Index.build(collection, tmp_path / "given", pool=2, codec=codec, progress=False)
    assert contents(tmp_path / "given") == contents(tmp_path / "plain")


def test_a_pooled_build_goes_on(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    Index.build(collection, tmp_path / "plain", pool=2, progress=False)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            "lateint.indexing.encoding.Encoder.put_lists", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        Index.build(collection, tmp_path / "index", pool=2, resume=True, progress=False)
    monkeypatch.setattr("lateint.indexing.builder.train", None)
    Index.build(collection, tmp_path / "index", pool=2, resume=True, progress=False)
    assert contents(tmp_path / "index") == contents(tmp_path / "plain")


def test_a_bad_token_is_named_by_the_document_that_was_given(clustered):
    collection = clustered([10, 10, 10])
    collection.tokens[27, 3] = np.nan
    with pytest.raises(ValueError, match="token 7 of document 2 holds a NaN"):
        Index.build(collection, pool=4, progress=False)


@pytest.mark.parametrize(("pool", "error"), [(0, ValueError), (17, ValueError), (2.0, TypeError)])
def test_bad_factors(collection, pool, error):
    with pytest.raises(error, match="pool must be"):
        Index.build(collection, pool=pool, progress=False)
