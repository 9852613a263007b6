"""A retrieval task of MTEB, made of a small collection, with lateint as its search backend."""

import numpy as np
import pytest

mteb = pytest.importorskip("mteb")
pytest.importorskip("datasets")
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SearchEncoderWrapper
from mteb.models.model_meta import ModelMeta
from words import Words

from lateint import Index, metrics
from lateint.integrations.mteb import LateIntIndex
from lateint.quality.evaluation import index_run

RNG = np.random.default_rng(0)
DOCUMENTS = {f"d{i}": " ".join(f"w{n}" for n in RNG.zipf(1.5, size=8) % 60) for i in range(200)}
QUERIES = {f"q{i}": " ".join(DOCUMENTS[f"d{7 * i}"].split()[:4]) + " w61" for i in range(25)}
QRELS = {f"q{i}": {f"d{7 * i}": 1, f"d{7 * i + 1}": 1} for i in range(25)}


class Task(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="SmallRetrieval", description="Words.", type="Retrieval", eval_splits=["test"], eval_langs=["eng-Latn"],
        main_score="ndcg_at_10", dataset={"path": "none/none", "revision": "1"},
    )  # fmt: skip

    def load_data(self, *args, **kwargs):
        def rows(texts):
            return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})

        split = {"corpus": rows(DOCUMENTS), "queries": rows(QUERIES), "relevant_docs": QRELS, "top_ranked": None}
        self.dataset, self.data_loaded = {"default": {"test": split}}, True


class Model:
    """What MTEB asks of a model; tokens come padded with zeros, as its own multi-vector models give them."""

    def __init__(self, padded):
        self.words, self.padded = Words(), padded

    @property
    def mteb_model_meta(self):
        unknown = (
            "loader release_date languages n_parameters memory_usage_mb max_tokens embed_dim license open_weights "
            "public_training_code public_training_data similarity_fn_name use_instructions training_datasets"
        )
        return ModelMeta(name="lateint/words", revision="1", framework=[], **dict.fromkeys(unknown.split()))

    def encode(self, inputs, **kwargs):
        tokens = self.words.encode_document([text for batch in inputs for text in batch["text"]])
        if not self.padded:
            return tokens
        made = np.zeros((len(tokens), max(map(len, tokens)), 16), np.float32)
        for row, of in enumerate(tokens):
            made[row, : len(of)] = of
        return made

    def similarity(self, a, b):
        raise AssertionError("MaxSim is computed by lateint")

    similarity_pairwise = similarity


@pytest.mark.parametrize("padded", [False, True])
def test_a_task_equals_our_own_evaluation(padded):
    wrapper = SearchEncoderWrapper(Model(padded), index_backend=LateIntIndex({"nbits": 8}))
    result = mteb.evaluate(wrapper, [Task()], cache=None, show_progress_bar=False).task_results[0]
    scores = result.scores["test"][0]
    words = Words()
    index = Index.build(words.encode_document(list(DOCUMENTS.values())), ids=list(DOCUMENTS), nbits=8, progress=False)
    run, _ = index_run(index, words.encode_query(list(QUERIES.values())), list(QUERIES), k=1000)
    expected = metrics.evaluate(QRELS, run, ["nDCG@10", "Recall@100", "Success@5"])
    assert 0.3 < expected["nDCG@10"] < 1
    assert scores["ndcg_at_10"] == pytest.approx(expected["nDCG@10"], abs=1e-6)
    assert scores["recall_at_100"] == pytest.approx(expected["Recall@100"], abs=1e-6)


def test_documents_are_ranked_again():
    backend, words = LateIntIndex(), Words()
    texts = ["red rose", "blue sky", "red sky"]
    backend.add_documents(words.encode_document(texts[:2]), ["a", "b"])
    backend.add_documents(words.encode_document(texts[2:]), ["c"])
    queries = words.encode_query(["red sky", "rose"])
    scores, numbers = backend.search(queries, 2, None, {"x": ["b", "c"], "y": []}, {0: "x", 1: "y"})
    assert numbers == [[1, 0], []]
    assert scores[0][0] == pytest.approx(2, abs=0.1)
    assert backend.search(queries, 1)[1] == [[2], [0]]
    backend.clear()
    with pytest.raises(ValueError, match="there are no documents: call add_documents first"):
        backend.search(queries, 1)
    with pytest.raises(ValueError, match="late interaction needs a model with a vector for each token"):
        backend.add_documents(np.zeros((2, 4), np.float32), ["a", "b"])
