"""What docs/integrations.md does with ranx: a run of hits has the measures that lateint gives it."""

import numpy as np
import pytest

ranx = pytest.importorskip("ranx")
from printed import program
from words import Words

from lateint import Index, metrics

TEXTS = {"a": "red rose", "b": "blue sky", "c": "red sky", "d": "white cat", "e": "snow"}


def test_a_run_of_hits():
    index = Index.build(texts=list(TEXTS.values()), ids=list(TEXTS), encoder=Words(), nbits=8, progress=False)
    qrels = {"1": {"a": 2, "c": 1}, "2": {"b": 1, "d": 1}}
    names = {"index": index, "queries": ["red rose", "blue cat"], "query_ids": ["1", "2"], "qrels": qrels}
    exec(program("integrations.md", "ranx"), names)
    found = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(names["run"]), ["ndcg@10", "recall@100", "mrr@10"])
    ours = metrics.evaluate(qrels, names["run"], ["nDCG@10", "Recall@100", "MRR@10"])
    np.testing.assert_allclose(list(found.values()), list(ours.values()), atol=1e-9)
