"""Hard negatives: found with an index, without what answers the question, and read again."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training import write_squares  # noqa: E402

from preflmr.data.m2kr import load  # noqa: E402
from preflmr.evaluation.retrieval import evaluate  # noqa: E402
from preflmr.training.mining import mine, read_mined  # noqa: E402


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load(write_squares(tmp_path_factory.mktemp("squares") / "squares"), split="train")


def test_mined_negatives_are_the_best_that_are_wrong(make_tiny, dataset, tmp_path):
    model = make_tiny()
    path = tmp_path / "deeper" / "mined.jsonl.gz"
    found = mine(model, dataset, path, k=4, without_answer=False, progress=False)
    mined = read_mined(path)
    assert list(mined) == [example.question_id for example in dataset.examples]
    assert found == sum(len(one.negatives) for one in mined.values())
    ranked = evaluate(model, dataset, ks=(8,), progress=False).questions
    for example in dataset.examples:
        own = mined[example.question_id]
        hits = [(hit["passage_id"], hit["score"]) for hit in ranked[example.question_id]["retrieved_passage"]]
        assert list(own.negatives.items()) == [hit for hit in hits if hit[0] not in example.positive_ids][:4]
        assert own.positives == {id: score for id, score in hits if id in example.positive_ids}
    assert [path.name for path in path.parent.iterdir()] == ["mined.jsonl.gz"]


def test_passages_with_an_answer_and_the_very_best_are_left_out(make_tiny, dataset, tmp_path):
    model = make_tiny()
    mine(model, dataset, tmp_path / "all", k=20, without_answer=False, progress=False)
    mine(model, dataset, tmp_path / "some", k=20, progress=False)
    mine(model, dataset, tmp_path / "skipped", k=3, skip=2, progress=False)
    everything, some, skipped = (read_mined(tmp_path / name) for name in ("all", "some", "skipped"))
    texts = dict(zip(dataset.passages.ids, dataset.passages.texts, strict=True))
    for example in dataset.examples:
        (answer,) = example.answers
        kept = [id for id in everything[example.question_id].negatives if answer not in texts[id]]
        assert list(some[example.question_id].negatives) == kept
        assert list(skipped[example.question_id].negatives) == kept[2 : 2 + len(skipped[example.question_id].negatives)]


def test_mistakes_are_refused(make_tiny, dataset, tmp_path):
    with pytest.raises(ValueError, match="k must be at least 1 and skip at least 0, got 0 and 0"):
        mine(make_tiny(), dataset, tmp_path / "file", k=0)
    with pytest.raises(FileNotFoundError):
        read_mined(tmp_path / "none")
    for row in ({"question_id": "q"}, {"question_id": "q", "positives": [], "negatives": {}}):
        (tmp_path / "wrong").write_text(
            json.dumps({"question_id": "a", "positives": {}, "negatives": {}}) + "\n" + json.dumps(row)
        )
        with pytest.raises(ValueError, match="wrong, line 2: must be an object with question_id, positives and negat"):
            read_mined(tmp_path / "wrong")
