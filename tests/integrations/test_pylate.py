"""PyLate's own example of retrieval, with the class of the index swapped, and what the base class asks for."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pylate")
pytest.importorskip("torch")
from pylate import models, rank, retrieve

from lateint import UnknownIdError
from lateint.integrations.pylate import LateInt

sys.path.append(str(Path(__file__).parents[1] / "lateint"))
from tiny_models import bert_folder

DOCUMENTS = ["the red rose", "the blue sky", "a white cat", "snow"]
IDS = ["1", "2", "3", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = bert_folder(tmp_path_factory.mktemp("models") / "bert")
    return models.ColBERT(model_name_or_path=str(folder), embedding_size=16, device="cpu")


def encoded(model, texts, is_query=False):
    return model.encode(texts, batch_size=32, is_query=is_query, show_progress_bar=False)


def test_the_example_of_pylate(model, tmp_path):
    index = LateInt(index_folder=tmp_path, index_name="index", override=True, nbits=8)
    embeddings = encoded(model, DOCUMENTS)
    index.add_documents(documents_ids=IDS, documents_embeddings=embeddings)
    retriever = retrieve.ColBERT(index=index)
    queries = encoded(model, ["the red rose", "white cat"], is_query=True)
    found = retriever.retrieve(queries_embeddings=queries, k=10)
    exact = rank.rerank([IDS, IDS], queries, [embeddings, embeddings])
    for hits, expected in zip(found, exact, strict=True):
        scores = {hit["id"]: hit["score"] for hit in expected}
        assert {hit["id"] for hit in hits} == set(IDS)
        for hit in hits:
            assert hit["score"] == pytest.approx(scores[hit["id"]], abs=0.02 * len(queries[0]))
    again = LateInt(index_folder=tmp_path, index_name="index")
    assert len(again) == 4
    assert retrieve.ColBERT(index=again).retrieve(queries_embeddings=queries, k=10) == found


def test_documents_change(model, tmp_path):
    index = LateInt(tmp_path, "index", nbits=8)
    embeddings = encoded(model, DOCUMENTS)
    query = encoded(model, ["snow"], is_query=True)
    with pytest.raises(ValueError, match="the index has no documents yet: call add_documents first"):
        index(query)
    index.add_documents(IDS[:2], embeddings[:2]).add_documents(IDS[2:], embeddings[2:])
    assert {hit["id"] for hit in index(query, k=9, subset=["2", "3", "none"])[0]} == {"2", "3"}
    assert index(query, subset=[["none"]]) == [[]]
    assert index(query, subset=[]) == [[]]
    index.remove_documents(["4"])
    assert {hit["id"] for hit in index(query)[0]} == {"1", "2", "3"}
    index.update_documents(["1"], embeddings[3:])
    assert np.allclose(index.get_documents_embeddings([["1"]])[0][0], embeddings[3], atol=0.02)
    with pytest.raises(UnknownIdError, match="4"):
        index.remove_documents(["4"])
    assert len(LateInt(tmp_path, "index", override=True).add_documents(["9"], embeddings[:1])) == 1
    assert len(index.clear()) == 0
    assert not (tmp_path / "index").exists()
