"""Generators learn to answer from passages: tiny random ones, whose words are whole tokens."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import tiny_generators  # noqa: E402
from PIL import Image  # noqa: E402

from preflmr.answering.asking import log_prior  # noqa: E402
from preflmr.answering.generator import Generator  # noqa: E402
from preflmr.cli import main  # noqa: E402
from preflmr.training.schema import build  # noqa: E402
from preflmr.tuning.config import TuneConfig  # noqa: E402
from preflmr.tuning.objective import TuningObjective  # noqa: E402
from preflmr.tuning.targets import Lesson, Lessons, target  # noqa: E402
from preflmr.tuning.tune import tune  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
THINGS = ("dog", "cat", "house", "red")


@pytest.fixture
def data(tmp_path):
    """A question about each of four things, whose passage names it, and what was retrieved for it."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "images/a.png")
    passages = [{"passage_id": f"p{n}", "passage_content": f"the {thing} of the"} for n, thing in enumerate(THINGS)]
    passages.append({"passage_id": "p4", "passage_content": "the of the"})
    asked = [
        {
            "question_id": f"q{n}",
            "question": "what is this ?",
            "img_path": "a.png",
            "pos_item_ids": [f"p{n}"],
            "answers": [thing],
        }
        for n, thing in enumerate(THINGS)
    ]
    for stem, rows in (("passages", passages), ("train", asked), ("valid", asked), ("test", asked)):
        (tmp_path / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {
        f"q{n}": {
            "retrieved_passage": [
                {"passage_id": f"p{n}", "score": 3.0},
                {"passage_id": "p4", "score": -9.0},
            ]
        }
        for n in range(4)
    }
    (tmp_path / "run.json").write_text(json.dumps(found))
    return tmp_path


def settings(data, folder, **changes):
    questions = {"source": str(data), "task": "things", "retrieved": str(data / "run.json")}
    own = {
        "output": str(data / "tuned"),
        "generator": str(folder),
        "train": questions,
        "valid": {**questions, "split": "valid"},
        "k": 2,
        "read": 1,
        "steps": 120,
        "questions_per_step": 4,
        "questions_at_once": 4,
        "learning_rate": 3e-3,
        "validate_every": 60,
        "max_new_tokens": 3,
        "beams": 1,
        "log_every": 1,
        "lora": {
            "r": 8,
            "alpha": 32,
            "dropout": 0.0,
            "modules": r".*language_model.*\.(q|k|v|o|wi|wo|\w+_proj|fc\d)",
        },
    }
    return {**own, **changes}


@pytest.fixture(params=tiny_generators.KINDS)
def folder(request, tmp_path):
    """A generator of each kind."""
    model, processor = tiny_generators.make(request.param)
    model.save_pretrained(tmp_path / request.param)
    processor.save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def test_likelihood_is_that_of_the_model(folder):
    """Of several prompts at once, padded, as of each alone, token by token."""
    generator = Generator.from_pretrained(str(folder), device="cpu", beams=1)
    prompts = [generator.prompt("what is this ?", text)[0] for text in ("a dog", "the red house of a cat")]
    shown = [Image.new("RGB", (40, 30), "red")]
    lesson = Lesson(prompts, ["dog", "red cat"], [-0.5, -1.0], shown)
    objective = TuningObjective(generator, "nll")
    found, lengths = objective.log_likelihood([lesson])
    assert lengths.tolist() == [2, 3]
    for number, answer in enumerate(lesson.targets):
        inputs = dict(generator.inputs([prompts[number]], [shown]))
        ids = generator.tokenizer(answer, add_special_tokens=False)["input_ids"] + [2]
        total = 0.0
        for place, token in enumerate(ids):
            if generator.model.config.is_encoder_decoder:
                before = torch.tensor([[0, *ids[:place]]])
                logits = generator.model(**inputs, decoder_input_ids=before).logits
            else:
                more = torch.tensor([ids[:place]], dtype=torch.long)
                longer = {**inputs, "input_ids": torch.cat([inputs["input_ids"], more], 1)}
                longer["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(more)], 1)
                logits = generator.model(**longer).logits
            total += logits[0, -1].log_softmax(-1)[token].item()
        assert found[number].item() == pytest.approx(total, abs=2e-3)
    marginal = TuningObjective(generator, "marginal")([lesson])
    joint = found + torch.tensor(lesson.priors)
    torch.testing.assert_close(marginal, -joint.logsumexp(0))


def test_it_learns_to_answer(folder, data):
    """By the commands, from a file of settings to an answer."""
    config = data / "tune.yaml"
    values = settings(data, folder, k=1)
    config.write_text(json.dumps(values))
    main(["tune", "--config", str(config)])
    summary = json.loads((data / "tuned/summary.json").read_text())
    measured = [one["Exact match"] for one in summary["validation"].values()]
    losses = [json.loads(line).get("loss") for line in (data / "tuned/log.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    # By chance 0.25 of the answers are right.
    assert losses[-1] < 0.1 * losses[0] and max(measured) >= 0.75, (losses[-1], measured)
    (data / "tuned/summary.json").unlink()  # as if it had been killed before the end
    main(["tune", "--config", str(config), "--resume"])
    assert json.loads((data / "tuned/summary.json").read_text()) == summary
    asked = ["answer", str(data / "tuned/best"), str(data), "--task", "things", "--out", str(data / "runs")]
    main([*asked, "--retrieved", str(data / "run.json"), "-k", "1", "--beams", "1", "--max-new-tokens", "3"])
    answered = json.loads((data / "runs/things_best.answers.summary.json").read_text())
    assert answered["measures"]["Exact match"] == max(measured)


def test_a_run_goes_on_to_the_same_parameters(data, monkeypatch):
    """With dropout, and killed in its third step."""
    model, processor = tiny_generators.make("blip2-t5")
    model.save_pretrained(data / "model")
    processor.save_pretrained(data / "model")
    values = settings(data, data / "model", steps=4, validate_every=2, loss="marginal", read=2, output=str(data / "a"))
    values["lora"] = {**values["lora"], "dropout": 0.3}
    tune(build(TuneConfig, values), cpu=True, progress=False)
    values["output"] = str(data / "b")
    forward, calls = TuningObjective.forward, []

    def killed(self, lessons):
        calls.append(lessons)
        if len(calls) == 3:
            raise MemoryError
        return forward(self, lessons)

    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(TuningObjective, "forward", killed)
        tune(build(TuneConfig, values), cpu=True, progress=False)
    with pytest.raises(ValueError, match="its own settings, these differ in learning_rate"):
        tune(build(TuneConfig, {**values, "learning_rate": 0.5}), resume=True, cpu=True, progress=False)
    tune(build(TuneConfig, values), resume=True, cpu=True, progress=False)
    assert (data / "a/log.jsonl").read_text() == (data / "b/log.jsonl").read_text()
    with pytest.raises(FileExistsError, match="there is a run in this folder"):
        tune(build(TuneConfig, values), cpu=True, progress=False)


def test_adapters_on_a_weight_that_is_shared_are_refused(data):
    """Merged, they would change the other layer, too: here the words' embedding."""
    model, processor = tiny_generators.make("blip2-opt")
    model.save_pretrained(data / "model")
    processor.save_pretrained(data / "model")
    values = settings(data, data / "model", lora={"modules": r".*language_model.*lm_head"})
    with pytest.raises(
        ValueError, match=r"lora.modules must name no layer whose weight is another's, too, got .*lm_head"
    ):
        tune(build(TuneConfig, values), cpu=True, progress=False)


def test_lessons(data):
    class Plain:
        def prompt(self, question, passage, pictures):
            return f"{question} {passage}", False

    values = settings(data, "model", read=2, loss="marginal")
    config = build(TuneConfig, values)
    from preflmr.answering.asking import read_run
    from preflmr.data.m2kr import load

    dataset = load(data, "things", "train")
    lessons = Lessons(dataset, read_run(data / "run.json"), Plain(), config)
    epoch = [lessons[n] for n in range(4)]
    assert sorted(one.targets[0] for one in epoch) == sorted(THINGS)
    assert all(len(one.prompts) == 2 and one.priors == log_prior([3.0, -9.0]).tolist() for one in epoch)
    assert lessons[2] == Lessons(dataset, read_run(data / "run.json"), Plain(), config)[2]
    nll = Lessons(dataset, read_run(data / "run.json"), Plain(), build(TuneConfig, {**values, "loss": "nll"}))
    assert {len(set(nll[n].targets)) for n in range(4)} == {1}  # each passage names another thing, none an answer
    few = {id: {"retrieved_passage": row["retrieved_passage"][:1]} for id, row in read_run(data / "run.json").items()}
    with pytest.raises(ValueError, match="question 'q0' must have 2 retrieved passages, got 1"):
        Lessons(dataset, few, Plain(), config)


def test_targets():
    assert target("A Dog.", ["dog", "cat", "cat"]) == "dog"
    assert target("neither", ["dog", "cat", "cat"]) == "cat"
    assert target("a cat and a dog", ["dog", "cat", "cat"]) == "cat"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"read": 3}, "read must be at most k, got 3 and 2"),
        ({"questions_at_once": 3}, "questions_per_step must be a multiple of questions_at_once, got 4 and 3"),
        ({"loss": "rag"}, "loss must be one of nll, marginal, got 'rag'"),
    ],
)
def test_wrong_settings_are_refused(data, changes, message):
    with pytest.raises(ValueError, match=message):
        build(TuneConfig, settings(data, "model", **changes))
