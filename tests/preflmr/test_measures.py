import random

import pytest

from preflmr.answering.scores import exact_match, gold_answer, vqa_score
from preflmr.evaluation.measures import answer_rank, average_ranks, pseudo_recall, recall


def test_recall_is_a_hit_rate():
    assert [recall(["c", "a", "b"], {"a", "b"}, k) for k in (1, 2, 3, 9)] == [0.0, 1.0, 1.0, 1.0]
    assert recall(["c"], set(), 5) == 0.0


def test_pseudo_recall_is_a_raw_substring_test():
    texts = ["Smart  cats.", "An ART\nmuseum", "x"]
    assert [pseudo_recall(texts, ["art"], k) for k in (1, 2)] == [1.0, 1.0]  # no word boundaries: "Smart"
    assert pseudo_recall(texts, ["  Museum \n"], 3) == 1.0  # the answer is stripped, in any case
    assert pseudo_recall(texts, ["smart cats"], 3) == 0.0  # but spaces inside are not touched
    assert pseudo_recall(texts, ["art museum"], 3) == 0.0
    assert pseudo_recall(texts, ["nothing", " "], 1) == 1.0  # an empty answer is in every text
    assert pseudo_recall(texts, [], 3) == 0.0
    assert pseudo_recall(["STRASSE"], ["straße"], 1) == 0.0  # lower(), not casefold()


def test_fewer_documents_than_k_are_taken_and_none_is_an_error():
    assert recall(["a"], {"a"}, 100) == 1.0 and pseudo_recall(["a"], ["b"], 100) == 0.0
    with pytest.raises(ValueError, match="at least one retrieved document"):
        recall([], {"a"}, 5)
    with pytest.raises(ValueError, match="at least one retrieved document"):
        pseudo_recall([], ["a"], 5)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        recall(["a"], {"a"}, 0)


def test_against_the_definitions_on_random_rankings():
    rng = random.Random(0)
    for _ in range(200):
        ids = rng.sample("abcdefgh", rng.randint(1, 8))
        texts = ["".join(rng.choices("ABab ", k=rng.randint(0, 6))) for _ in ids]
        positives, answers = set(rng.sample("abcdefgh", 2)), ["".join(rng.choices("aB ", k=2)) for _ in range(2)]
        for k in (1, 3, 10):
            assert recall(ids, positives, k) == float(any(one in positives for one in ids[:k]))
            hit = any(answer.strip().lower() in text.lower() for text in texts[:k] for answer in answers)
            assert pseudo_recall(texts, answers, k) == float(hit)


def test_texts_after_the_first_hit_are_not_looked_at():
    def texts():
        yield "no"
        yield "yes"
        raise AssertionError

    assert answer_rank(texts(), ["yes"], 500) == 2


def test_average_ranks_share_ties_and_leave_out_what_was_not_measured():
    rows = {"a": [9.0, 5.0, 1.0], "b": [8.0, 5.0, 2.0], "c": [7.0, 5.0, 3.0], "d": [None, 4.0, 4.0]}
    assert average_ranks(rows) == {"a": (1 + 2 + 4) / 3, "b": (2 + 2 + 3) / 3, "c": (3 + 2 + 2) / 3, "d": None}
    assert average_ranks({}) == {}
    with pytest.raises(ValueError, match="equally many columns"):
        average_ranks({"a": [1.0], "b": []})


@pytest.mark.parametrize(
    ("prediction", "matching", "score"),
    [("dog", 0, 0.0), ("dog", 1, 0.3), ("dog", 2, 0.6), ("dog", 3, 0.9), ("dog", 4, 1.0), ("dog", 10, 1.0)],
)
def test_vqa_score_of_ten_annotators(prediction, matching, score):
    # With m matches, m times the other m - 1 count, and 10 - m times all m.
    answers = ["dog"] * matching + [f"other {n}" for n in range(10 - matching)]
    assert vqa_score(prediction, answers) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("The dog.", "dog"),
        ("two", "2"),
        ("None", "zero"),
        ("dont know", "don't know"),
        ("1,000", "1000"),
        ("black-white", "black white"),
        ("well, yes", "well yes"),
        ("3.5", "3.5"),
        (" dog\n", "dog"),
    ],
)
def test_vqa_score_compares_normal_forms_where_annotators_disagree(prediction, answer):
    assert vqa_score(prediction, [answer] * 5 + ["something else"] * 5) == 1.0


def test_vqa_score_compares_as_written_where_they_agree():
    assert vqa_score("The dog", ["dog"] * 10) == 0.0 and vqa_score("dog", ["dog"] * 10) == 1.0
    with pytest.raises(ValueError, match="at least one answer"):
        vqa_score("dog", [])


def test_exact_match_and_its_ranges():
    assert exact_match("The  Alps!", ["himalaya", "alps"]) == 1.0 and exact_match("alp", ["alps"]) == 0.0
    assert exact_match("about 1,250.5 m", [(1250.5, 1300)]) == 1.0
    assert exact_match("-3", [(-4, -2)]) == 1.0 and exact_match("5", [(-4, -2), "five", (5, 6)]) == 1.0
    assert exact_match("many", [(0, 1e9)]) == 0.0 and exact_match("7", []) == 0.0


def test_the_gold_answer_does_not_depend_on_hashes():
    assert gold_answer(["b", "a", "a", "b", "c"]) == "b" and gold_answer(["x"]) == "x"
    with pytest.raises(ValueError, match="at least one answer"):
        gold_answer([])
