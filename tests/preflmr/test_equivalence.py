"""BEM with a tiny random classifier."""

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

sys.path.append(str(Path(__file__).parents[1] / "lateint"))

from tiny_models import bert_folder  # noqa: E402

from preflmr.answering.equivalence import Equivalence  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = bert_folder(tmp_path_factory.mktemp("tiny") / "bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.BertConfig.from_pretrained(place, num_labels=2)
        model = transformers.BertForSequenceClassification(config)
        torch.nn.init.normal_(model.classifier.weight, std=3.0)
        model.save_pretrained(place)
    return place


def test_probabilities_are_those_of_the_published_format(folder):
    bem = Equivalence.from_pretrained(str(folder), device="cpu", batch_size=2)
    questions, answers, right = ["how the sky", "the cat", "red"], ["blue sky", "cat", "rose"], ["sky", "snow", "leaf"]
    found = bem.probabilities(questions, answers, right)
    for question, answer, one, value in zip(questions, answers, right, found, strict=True):
        text = bem.tokenizer.tokenize(f"[CLS] {answer} [SEP] {one} [SEP] {question} [SEP]")
        ids = torch.tensor([bem.tokenizer.convert_tokens_to_ids(text)])
        types = (ids == bem.tokenizer.sep_token_id).cumsum(1).clamp(max=1)
        types = torch.cat([torch.zeros_like(types[:, :1]), types[:, :-1]], 1)
        with torch.inference_mode():
            logits = bem.model(input_ids=ids, token_type_ids=types).logits
        assert value == pytest.approx(logits.softmax(-1)[0, 1].item(), abs=1e-5)


def test_the_best_of_the_right_answers_counts(folder, monkeypatch):
    bem = Equivalence.from_pretrained(str(folder), device="cpu")
    known = {"sky": 0.2, "snow": 0.7, "leaf": 0.4}
    monkeypatch.setattr(bem, "probabilities", lambda questions, answers, right: [known[one] for one in right])
    rows = [("q", "a", ["sky", "snow", "sky"]), ("q", "b", ["leaf"]), ("q", "c", [])]
    assert bem.judge(rows) == [1.0, 0.0, 0.0]


def test_a_model_of_other_labels_is_refused(folder):
    model = transformers.BertForSequenceClassification(transformers.BertConfig.from_pretrained(folder, num_labels=3))
    with pytest.raises(ValueError, match="model must have two labels, not equivalent and equivalent, got 3"):
        Equivalence(model, None)
