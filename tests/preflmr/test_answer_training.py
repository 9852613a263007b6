import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402
from tiny_generators import KINDS, make, pictures  # noqa: E402

from preflmr.answer_training import _Collator, _Row, target, train  # noqa: E402
from preflmr.answering import answer  # noqa: E402
from preflmr.generator import Generator  # noqa: E402
from preflmr.images import Images  # noqa: E402
from preflmr.m2kr import Dataset, Example, Passages  # noqa: E402
from preflmr.tasks import task_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's


@pytest.fixture
def data(tmp_path):
    """Two questions alike, whose passages say different things."""
    for n, (picture,) in enumerate(pictures(2)):
        picture.save(tmp_path / f"{n}.png")
    answers = (("dog",) * 3 + ("house",), ("cat", "cat", "house"))
    examples = [Example(f"q{n}", "what is this ?", None, (f"{n}.png",), (), answers[n], "mine") for n in range(2)]
    passages = Passages(["p0", "p1", "p2"], ["the dog", "a house in red", "cat"])
    return Dataset(task_of("mine"), "train", examples, passages, Images(tmp_path))


FOUND = {
    f"q{n}": {"retrieved_passage": [{"passage_id": "p1", "score": 1.0}, {"passage_id": f"p{2 * n}", "score": 1.0}]}
    for n in range(2)
}


def test_the_target_is_the_gold_answer_or_one_that_the_passage_has():
    answers = ["cow", "dog", "dog", "cat", "cat", "bird"]
    assert target(answers, "A cat and a DOG") == "dog"  # of dog and cat, as often, the one given first
    assert target(answers, "cats, birds") == "cat" and target(answers, "cows and birds") == "cow"
    assert target(answers, "nothing") == target(answers, None) == "dog"
    with pytest.raises(ValueError, match="at least one answer"):
        target([], "cat")


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_the_targets_tokens(kind):
    model, processor = make(kind)
    generator = Generator(model, processor)
    prompts = [generator.prompt("what is this ?", text)[0] for text in ("a red house", "dog")]
    batch = _Collator(generator)([_Row(prompts, pictures(1)[0], ["dog", "a red house"])])
    kept = batch["labels"] != -100
    words = [generator.tokenizer.decode(row[mask]) for row, mask in zip(batch["labels"], kept, strict=True)]
    assert words == ["dog</s>", "a red house</s>"] or words == ["dog </s>", "a red house </s>"]
    if kind != "blip2-t5":
        assert torch.equal(batch["input_ids"][kept], batch["labels"][kept])
        assert bool(batch["attention_mask"][kept].all()) and batch["attention_mask"].shape == batch["labels"].shape
    # Padding takes no part: the loss is that of each alone, weighted by its tokens.
    model.requires_grad_(False)
    alone = [
        model(**_Collator(generator)([_Row([prompt], pictures(1)[0], [text])])).loss
        for prompt, text in zip(prompts, ("dog", "a red house"), strict=True)
    ]
    assert float(model(**batch).loss) == pytest.approx(float(2 * alone[0] + 4 * alone[1]) / 6, rel=1e-4)


def trained(data, output, steps, **settings):
    generator = Generator(*make("blip2-t5"), beams=2, max_new_tokens=4)
    settings = {"questions_per_step": 2, "learning_rate": 0.05, "k": 2, "dropout": 0.0, **settings}
    arguments = {"disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, "save_steps": 2}
    return train(generator, data, FOUND, output, steps=steps, arguments=arguments, **settings), generator


def test_a_generator_learns_to_answer_from_passages(data, tmp_path):
    base, processor = make("blip2-t5")
    base.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    before = {name: value.clone() for name, value in base.state_dict().items()}
    generator = Generator.from_pretrained(str(tmp_path / "base"), device="cpu", beams=2, max_new_tokens=4)
    settings = {"k": 2, "passages": 2, "questions_per_step": 2, "learning_rate": 0.03, "dropout": 0.0}
    arguments = {"disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False}
    train(generator, data, FOUND, tmp_path / "out", steps=40, arguments=arguments, **settings)
    again = Generator.from_pretrained(str(tmp_path / "out"), device="cpu", beams=2, max_new_tokens=4)
    for one in (generator, again):
        rows = answer(one, data, FOUND, k=2, progress=False).questions
        assert [[each["answer"] for each in row["candidates"]] for row in rows.values()] == [
            ["house", "dog"], ["house", "cat"]
        ]  # fmt: skip
    for name, value in load_file(tmp_path / "base" / "model.safetensors").items():
        assert torch.equal(value, before[name])
    assert not (tmp_path / "out" / "model.safetensors").exists()  # adapters only


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(data, tmp_path):
    trained(data, tmp_path / "whole", 4, passages=1, dropout=0.5)
    trained(data, tmp_path / "parts", 2, passages=1, dropout=0.5)
    trained(data, tmp_path / "parts", 4, passages=1, dropout=0.5, resume=True)
    whole, parts = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_what_does_not_fit_is_said(data, tmp_path):
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        trained(data, tmp_path / "out", 0)
    with pytest.raises(ValueError, match="question 'q0': k must be at most the 2 passages"):
        trained(data, tmp_path / "out", 1, k=3)
    blind = [Example("q0", "what ?", None, (), (), (), "mine")]
    with pytest.raises(ValueError, match="dataset must hold questions with answers and pictures to train on"):
        trained(Dataset(data.task, "train", blind, data.passages, data.images), tmp_path / "out", 1)
    generator = Generator(*make("blip2-t5"), passages=False)
    with pytest.raises(ValueError, match="generator must be made for passages if some were found"):
        train(generator, data, FOUND, tmp_path / "out", steps=1)
