"""What training starts from: new models, parts that learn and parts that do not, adapters."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training import recipe  # noqa: E402
from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel  # noqa: E402

from preflmr.model import PreFLMR  # noqa: E402
from preflmr.training import starting  # noqa: E402
from preflmr.training.recipe import TrainConfig  # noqa: E402
from preflmr.training.recipe_file import build  # noqa: E402

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZE, "image_size": 32, "patch_size": 16}


def config(**changes):
    return build(TrainConfig, recipe("out", "data", **changes))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory, make_tiny):
    """Folders of a BERT with its vocabulary and of a CLIP, with random weights."""
    folder = tmp_path_factory.mktemp("encoders")
    tokenizer = make_tiny().query_tokenizer.tokenizer
    BertModel(BertConfig(**SIZE, vocab_size=len(tokenizer))).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(folder / "clip")
    return folder


def test_a_checkpoint(make_tiny, tmp_path):
    make_tiny().save_pretrained(tmp_path)
    made = starting.start_model(
        config(model={"start": str(tmp_path), "separate_text_encoders": True, "query_length": 9})
    )
    assert made.config.separate_query_and_context_text_encoder
    assert len(made.parts()["text_encoder"]) == 4
    assert made.query_tokenizer("a")["input_ids"].shape == (1, 9)


@pytest.mark.parametrize("place", ["", "query_tokenizer", "context_tokenizer"])
def test_a_published_folder_of_tokenizers_will_do(encoders, make_tiny, tmp_path, place):
    published = make_tiny()
    published.save_pretrained(tmp_path)
    settings = {"text": str(encoders / "bert"), "tokenizer": str(tmp_path / place), "config": {"dim": 16}}
    made = starting.start_model(config(model=settings))
    expected = published.query_tokenizer("find: it, now", max_length=32)
    assert torch.equal(made.query_tokenizer("find: it, now")["input_ids"], expected["input_ids"])
    assert made.document_tokenizer("a")["input_ids"][0, 1] == published.document_tokenizer.marker_id


def test_a_new_model_of_two_encoders(encoders, tmp_path):
    settings = {"text": str(encoders / "bert"), "vision": str(encoders / "clip"), "config": {"dim": 16}}
    made = starting.start_model(config(model=settings))
    bert = BertModel.from_pretrained(encoders / "bert")
    assert torch.equal(
        made.query_text_encoder.bert_model.embeddings.word_embeddings.weight, bert.get_input_embeddings().weight
    )
    assert made.config.use_transformer_mapping_network and made.config.vision_config.patch_size == 16
    again = starting.start_model(config(model=settings))
    other = starting.start_model(config(model=settings, seed=1))
    name = "query_vision_projection.model.0.weight"
    assert torch.equal(made.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(made.state_dict()[name], other.state_dict()[name])
    # The next model takes its text encoder, linear layer and tokenizers over.
    made.save_pretrained(tmp_path)
    after = starting.start_model(
        config(model={"text": str(tmp_path), "config": {"dim": 16, "vision_config": VISION}, "document_length": 20})
    )
    assert torch.equal(after.query_text_encoder_linear.weight, made.query_text_encoder_linear.weight)
    assert not torch.equal(after.state_dict()[name], made.state_dict()[name])
    assert (after.query_tokenizer.max_length, after.document_tokenizer.max_length) == (32, 20)


def test_what_does_not_fit_is_refused(encoders, make_tiny, tmp_path):
    text = str(encoders / "bert")
    with pytest.raises(ValueError, match=r"text_config.hidden_size must be that of the checkpoint, 32, got 64"):
        starting.start_model(config(model={"text": text, "config": {"text_config": {"hidden_size": 64}}}))
    with pytest.raises(ValueError, match=r"model must have text, or config.text_config"):
        starting.start_model(config(model={"config": {"vision_config": VISION}}))
    make_tiny().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"model.config.dim must be that of model.text"):
        starting.start_model(config(model={"text": str(tmp_path), "config": {"dim": 8}}))
    blind = make_tiny(use_vision_encoder=False, use_transformer_mapping_network=False)
    with pytest.raises(ValueError, match="learning_rates names vision_encoder, which this model does not have"):
        starting.choose_trained(blind, config(learning_rates={"vision_encoder": 1e-4}))


@pytest.mark.parametrize("parts", [["mapping"], ["text_encoder", "mapping"], ["vision_encoder"]])
@pytest.mark.parametrize("frozen_dropout", [False, True])
def test_parts_that_are_not_named_are_frozen(make_tiny, parts, frozen_dropout):
    model = make_tiny()
    rates = {part: 10.0**-n for n, part in enumerate(parts, 3)}
    settings = config(learning_rates=rates, frozen_dropout=frozen_dropout)
    groups = starting.choose_trained(model, settings)
    assert [(group["name"], group["lr"]) for group in groups] == list(rates.items())
    starting.set_training(model, settings)
    learning = {id(one) for group in groups for one in group["params"]}
    assert learning == {id(one) for one in model.parameters() if one.requires_grad}
    for part, modules in model.parts().items():
        for module in modules:
            assert module.training == (part in parts or frozen_dropout)
            assert any(id(one) in learning for one in module.parameters()) == (part in parts)
    names = {name for name, one in model.named_parameters() if one.requires_grad}
    assert not any(".pooler." in name or ".post_layernorm." in name for name in names)


def test_schedules(make_tiny):
    def rates(**settings):
        changed = config(optimizer=settings, steps=10, learning_rates={"mapping": 1.0})
        optimizer = starting.make_optimizer(starting.choose_trained(make_tiny(), changed), changed)
        schedule = starting.make_schedule(optimizer, changed)
        found = []
        for _ in range(10):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    assert rates() == [1.0] * 10
    assert rates(warmup=2)[:4] == [0.0, 0.5, 1.0, 1.0]
    assert rates(schedule="linear") == pytest.approx([1 - n / 10 for n in range(10)])
    assert rates(schedule="cosine")[5] == pytest.approx(0.5)
    assert isinstance(
        starting.make_optimizer(starting.choose_trained(make_tiny(), config()), config()), torch.optim.Adam
    )


def test_adapters_learn_in_place_of_the_text_encoder_and_are_merged_when_saved(make_tiny, tmp_path):
    pytest.importorskip("peft")
    plain = make_tiny()
    settings = config(model__lora={"r": 2, "alpha": 4, "dropout": 0.0})
    model = starting.start_model(settings, make_tiny())
    groups = {group["name"]: group["params"] for group in starting.choose_trained(model, settings)}
    names = {name for name, one in model.named_parameters() if one.requires_grad and "text_encoder." in name}
    assert names and all("lora_" in name for name in names)
    assert len(groups["text_encoder"]) == len(names) + 1  # and the linear layer
    texts = model.query_tokenizer(["find: red", "green"])
    with torch.no_grad():
        before = model.query(**texts).late_interaction_output
        torch.testing.assert_close(before, plain.query(**texts).late_interaction_output)
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.fill_(0.1)
        adapted = model.query(**texts).late_interaction_output
    assert not torch.allclose(adapted, before, atol=1e-3)
    starting.save_model(model, tmp_path)
    assert "lora" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    with torch.no_grad():
        read = PreFLMR.from_pretrained(tmp_path).query(**texts).late_interaction_output
        torch.testing.assert_close(read, adapted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.query(**texts).late_interaction_output, adapted, rtol=0, atol=0)
