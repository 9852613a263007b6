"""Models of sentence-transformers and PyLate behind the protocol, against what these libraries give themselves."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

sys.path.append(str(Path(__file__).parents[1] / "lateint"))

from tiny_models import bert_folder  # noqa: E402

from preflmr import retrievers  # noqa: E402
from preflmr.cli import main  # noqa: E402
from preflmr.encode import encode_documents, encode_queries  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = ["a red rose", "the sky, blue!", "green leaf", "black cat of snow: white", "how do the cat work"]


@pytest.fixture(scope="module", params=["sentence-transformers", "pylate"])
def kind(request):
    if request.param == "pylate":
        pytest.importorskip("pylate.models", reason="PyLate is not installed")
    else:
        library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
        if not hasattr(library, "MultiVectorEncoder"):
            pytest.skip("sentence-transformers 6 is not installed")
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    bert = str(bert_folder(place / "bert"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "pylate":
            from pylate.models import ColBERT

            model = ColBERT(bert, device="cpu", embedding_size=16, query_length=12, document_length=16)
        else:
            from sentence_transformers import MultiVectorEncoder

            model = MultiVectorEncoder(bert, device="cpu", prompts={"query": "how ", "document": "the "})
    model.save(str(place / "model"))
    return place / "model"


def own_rows(kind, model, side):
    if kind == "pylate":
        return model.encode(TEXTS, is_query=side == "query", show_progress_bar=False)
    return getattr(model, f"encode_{side}")(TEXTS, show_progress_bar=False, convert_to_numpy=True)


def test_rows_are_those_of_the_library(kind, folder):
    retriever = retrievers.load(folder)
    assert retrievers.kind_of(folder) == kind
    tokens, lengths = next(iter(encode_documents(retriever, TEXTS, progress=False)))
    found = {
        "document": np.split(tokens, np.cumsum(lengths)[:-1]),
        "query": encode_queries(retriever, TEXTS, progress=False),
    }
    for side, rows in found.items():
        for one, other in zip(rows, own_rows(kind, retriever.model, side), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_texts_that_are_cut_are_counted(kind, folder):
    retriever = retrievers.load(folder)
    retriever.tokenized("document", ["cat", "cat " * 600])
    assert retriever.truncated == {"query": 0, "document": 1}


def test_pictures_are_refused(folder):
    with pytest.raises(ValueError, match="there must be no pictures: this model reads texts"):
        retrievers.load(folder).inputs("query", ["a"], [["picture"]])


def test_it_is_trained_indexed_searched_and_evaluated(kind, folder, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    passages = [{"passage_id": f"p{i}", "passage_content": text} for i, text in enumerate(TEXTS[:4])]
    words = ["rose", "sky", "leaf", "cat"]
    asked = [
        {"question_id": f"q{i}", "question": f"work {word}", "pos_item_ids": [f"p{(i + 1) % 4}"]}
        for i, word in enumerate(words)
    ]
    for stem, rows in (("passages", passages), ("train", asked), ("test", asked)):
        (data / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "output": str(tmp_path / "run"),
        "model": {"start": str(folder)},
        "data": {"source": str(data), "negatives": 0, "mix": {"words": {}}},
        "learning_rates": {"text_encoder": 2e-3, "mapping": 2e-3},
        "steps": 90,
        "queries_per_step": 4,
        "batch_size": 4,
        "log_every": 1,
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    main(["train", "--config", str(tmp_path / "recipe.yaml")])
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    best, index = str(tmp_path / "run/best"), str(tmp_path / "index")
    assert retrievers.kind_of(best) == kind
    main(["index", best, index, "--passages", str(data / "passages.jsonl")])
    main(["eval", best, str(data), "--task", "words", "--out", str(tmp_path / "runs")])
    capsys.readouterr()
    main(["search", best, index, "--question", "work rose", "-k", "1", "--json"])
    assert TEXTS[1] in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/words_best.summary.json").read_text())["measures"]["Recall@1"] >= 0.75
