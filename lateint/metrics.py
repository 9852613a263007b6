"""Retrieval quality, by the name under which users import it: see `lateint.quality.metrics`."""

from lateint.quality.metrics import MEASURES, Qrels, Run, evaluate, mrr, ndcg, per_query, recall, success

__all__ = ["MEASURES", "Qrels", "Run", "evaluate", "mrr", "ndcg", "per_query", "recall", "success"]
