import random

import pytest

pytest.importorskip("transformers")

from preflmr.data.m2kr import Example, Passages
from preflmr.evaluation.judging import judge

PASSAGES = Passages(["a", "b", "c"], ["The Alps", "the sea", "nothing"])


def example(id="q", positives=("a",), answers=("ALP ",)):
    return Example(id, "What?", None, (), positives, answers, "task")


def test_a_question_by_hand():
    questions, means = judge([example()], PASSAGES, [([1, 0, 2], [3.5, 2.0, 1.0])], ks=(1, 2))
    assert questions == {
        "q": {
            "retrieved_passage": [
                {"passage_id": "b", "score": 3.5},
                {"passage_id": "a", "score": 2.0},
                {"passage_id": "c", "score": 1.0},
            ],
            "Recall@1": 0.0,
            "Recall@2": 1.0,
            "Pseudo Recall@1": 0.0,
            "Pseudo Recall@2": 1.0,
        }
    }
    assert means == {"Recall@1": 0.0, "Recall@2": 1.0, "Pseudo Recall@1": 0.0, "Pseudo Recall@2": 1.0}


def test_means_of_several():
    asked = [example("1"), example("2", ("b", "c"), ("sea",)), example("3", (), ())]
    rankings = [([0, 1, 2], [3, 2, 1]), ([0, 1, 2], [3, 2, 1]), ([2], [1])]
    _, means = judge(asked, PASSAGES, rankings, ks=(1, 2, 50))
    assert means["Recall@1"] == pytest.approx(1 / 3) and means["Recall@2"] == pytest.approx(2 / 3)
    assert means["Pseudo Recall@50"] == pytest.approx(2 / 3)
    assert means["MRR@10"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert means["Share@50"] == pytest.approx((1 + 1 + 0) / 3)
    assert 0 < means["nDCG@10"] < 1


def test_only_what_can_be_judged_is():
    ranking = ([0], [1.0])
    assert set(judge([example(positives=())], PASSAGES, [ranking], (1,))[1]) == {"Pseudo Recall@1"}
    assert set(judge([example(answers=())], PASSAGES, [ranking], (1,))[1]) == {"Recall@1"}


def test_an_id_that_comes_again_loses_no_question():
    questions, means = judge([example(), example(), example()], PASSAGES, [([0], [1]), ([1], [1]), ([2], [1])], (1,))
    assert list(questions) == ["q", "q#2", "q#3"] and means["Recall@1"] == pytest.approx(1 / 3)


def test_nothing_found_is_an_error():
    with pytest.raises(ValueError, match="at least one retrieved document"):
        judge([example()], PASSAGES, [([], [])], (5,))


def test_a_passage_is_lowered_once_however_often_it_is_found():
    class Text(str):
        lowered = 0

        def lower(self):
            Text.lowered += 1
            return str.lower(self)

    passages = Passages([str(n) for n in range(30)], [Text(f"Text {n}") for n in range(30)])
    rng = random.Random(0)
    asked = [example(str(n), ("x",), ("no such word", "TEXT 3")) for n in range(100)]
    rankings = [(rng.sample(range(30), 20), [0.0] * 20) for _ in asked]
    questions, _ = judge(asked, passages, rankings, (20,))
    assert Text.lowered <= 30
    assert [row["Pseudo Recall@20"] for row in questions.values()] == [
        float(any(str(n).startswith("3") for n in found)) for found, _ in rankings
    ]
