"""lateint.quality.metrics against ir-measures (pytrec_eval underneath) and by hand."""

import math
import random

import pytest

from lateint import metrics

FUNCTIONS = {"nDCG": metrics.ndcg, "MRR": metrics.mrr, "Recall": metrics.recall, "Success": metrics.success}


def graded_data(seed, ties=True):
    """Graded judgements and a run with unjudged documents, and queries only one of the two knows."""
    rng = random.Random(seed)
    documents = [f"d{i}" for i in range(60)]
    qrels = {
        f"q{i}": {d: rng.choice([-1, 0, 0, 1, 2, 3]) for d in rng.sample(documents, rng.randint(1, 15))}
        for i in range(25)
    }
    qrels["q0"] = {"d1": 0, "d2": 0}  # judged, nothing relevant
    run = {}
    for i in range(3, 30):
        found = rng.sample(documents, rng.randint(1, 40))
        scores = [rng.randint(0, 8) / 4 for _ in found] if ties else rng.sample(range(1000), len(found))
        run[f"q{i}"] = dict(zip(found, map(float, scores), strict=True))
    return qrels, run


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 5, 10, 100])
@pytest.mark.parametrize("measure", FUNCTIONS)
def test_agrees_with_ir_measures(measure, k, seed):
    ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    # Its RR@k comes from MS MARCO's script, which breaks ties the other way round; without a cut-off it is trec_eval's.
    qrels, run = graded_data(seed, ties=measure != "MRR" or k == 100)
    theirs = {"nDCG": ir_measures.nDCG, "MRR": ir_measures.RR, "Recall": ir_measures.R, "Success": ir_measures.Success}
    theirs = theirs[measure] if measure == "MRR" and k == 100 else theirs[measure] @ k
    provider = ir_measures.msmarco if measure == "MRR" and k < 100 else ir_measures.pytrec_eval
    expected = provider.calc_aggregate([theirs], qrels, run)[theirs]
    assert FUNCTIONS[measure](qrels, run, k) == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    qrels = {"q": {"a": 3, "b": 1, "c": 0}}
    run = {"q": {"c": 3.0, "b": 2.0, "x": 1.5, "a": 1.0}}
    dcg, best = 1 / math.log2(3) + 3 / math.log2(5), 3 + 1 / math.log2(3)
    assert metrics.ndcg(qrels, run, 10) == pytest.approx(dcg / best)
    assert metrics.mrr(qrels, run, 10) == 0.5
    assert metrics.mrr(qrels, run, 1) == 0.0
    assert metrics.recall(qrels, run, 3) == 0.5
    assert (metrics.success(qrels, run, 1), metrics.success(qrels, run, 2)) == (0.0, 1.0)


def test_equal_scores_rank_by_falling_id_whatever_the_order_written():
    qrels = {"q": {"a": 1}}
    assert metrics.mrr(qrels, {"q": {"a": 1.0, "b": 1.0}}) == 0.5
    assert metrics.mrr(qrels, {"q": {"b": 1.0, "a": 1.0}}) == 0.5


def test_integer_ids():
    assert metrics.recall({1: {7: 1, 8: 1}}, {1: {7: 0.5, 9: 0.4}}) == 0.5


def test_queries_without_judgements_are_left_aside_and_missing_ones_count_as_zero():
    qrels = {"q": {"a": 1}, "p": {"a": 1}}
    assert metrics.success(qrels, {"q": {"a": 1.0}, "other": {"a": 1.0}}) == 0.5


def test_evaluate_names():
    qrels, run = graded_data(7)
    assert metrics.evaluate(qrels, run) == {
        "nDCG@10": metrics.ndcg(qrels, run, 10),
        "Recall@100": metrics.recall(qrels, run, 100),
        "MRR@10": metrics.mrr(qrels, run, 10),
        "Success@5": metrics.success(qrels, run, 5),
    }


@pytest.mark.parametrize("name", ["MAP@10", "nDCG", "nDCG@", "nDCG@ten", "@5"])
def test_unknown_measure(name):
    with pytest.raises(ValueError, match=r"measures must be of the form nDCG@k, MRR@k, Recall@k, Success@k, got '"):
        metrics.evaluate({"q": {"a": 1}}, {}, [name])


@pytest.mark.parametrize("function", FUNCTIONS.values())
def test_bad_input(function):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        function({"q": {"a": 1}}, {}, 0)
    with pytest.raises(ValueError, match="qrels must judge at least one query, got none"):
        function({}, {})
    with pytest.raises(ValueError, match="run must hold numbers, got NaN for query 'q', document 'b'"):
        function({"q": {"a": 1}}, {"q": {"a": 1.0, "b": math.nan}})
