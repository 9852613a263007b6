"""examples/faiss_first_stage.py, with an encoder that knows words."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from words import Words

SPEC = spec_from_file_location("first_stage", Path(__file__).parents[2] / "examples" / "faiss_first_stage.py")
faiss_first_stage = module_from_spec(SPEC)
SPEC.loader.exec_module(faiss_first_stage)


def test_candidates_of_faiss_are_put_into_order(capsys):
    pytest.importorskip("faiss")
    words = Words()
    found = faiss_first_stage.main(words)
    (query,) = words.encode_query(["how do vaccines work?"])
    tokens = dict(zip(faiss_first_stage.TEXTS, words.encode_document(faiss_first_stage.TEXTS.values()), strict=True))
    assert len(found) == 3
    assert found == sorted(found, key=lambda id: -(query @ tokens[id].T).max(1).sum())
    assert "faiss:" in capsys.readouterr().out


def test_one_vector_for_each_text():
    vectors = faiss_first_stage.means(Words().encode_document(["red rose", "red"]))
    assert vectors.shape == (2, 16)
    assert (vectors**2).sum(1) == pytest.approx(1)
