"""DSPy's retriever: a module whose prediction has passages."""

import pytest

dspy = pytest.importorskip("dspy")
from words import Words

from lateint.integrations.dspy import LateIntRetriever


def test_passages_come_best_first(tmp_path):
    search = LateIntRetriever(Words(), tmp_path / "index", k=2)
    assert search("red").passages == []
    search.store.add(["a", "b", "c"], ["red rose", "blue sky", "red sky"], [{"year": 1}, {"year": 2}, {"year": 3}])
    found = search("red sky")
    assert isinstance(found, dspy.Prediction)
    assert found.passages[0] == "red sky" and len(found.passages) == 2
    assert found.ids[0] == "c" and found.metadata[0] == {"year": 3}
    assert found.scores[0] == pytest.approx(2, abs=0.1)
    assert search("red sky", k=1, filter={"year": {"$lt": 3}}).ids[0] in ("a", "b")
    assert LateIntRetriever(Words(), tmp_path / "index")("rose", k=1).ids == ["a"]
