"""A grid of two by two tiny models, trained in two stages and measured."""

import json
from xml.etree import ElementTree

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import yaml  # noqa: E402
from training import write_squares  # noqa: E402

from preflmr.model import PreFLMR  # noqa: E402
from preflmr.studies import scaling  # noqa: E402
from preflmr.training import train  # noqa: E402

SIZE = {"num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.fixture
def study(make_tiny, tmp_path):
    """The file of a study."""
    make_tiny().save_pretrained(tmp_path / "tokens")
    write_squares(tmp_path / "squares")
    vocabulary = len(make_tiny().query_tokenizer)

    def text(width):
        return {"text_config": {**SIZE, "hidden_size": width, "intermediate_size": 32, "vocab_size": vocabulary}}

    def vision(width):
        sizes = {**SIZE, "hidden_size": width, "intermediate_size": 32, "image_size": 32, "patch_size": 16}
        return {"vision_config": sizes}

    def on_stage_1(config):
        return {"stages": {"one": {"model": {"config": config}}}}

    model = {"config": {"dim": 16, "mapping_network_prefix_length": 4}, "tokenizer": str(tmp_path / "tokens")}
    recipe = {
        "data": {"source": str(tmp_path / "squares"), "negatives": 1, "mix": {"squares": {}}},
        "learning_rates": {"mapping": 1e-3},
        "queries_per_step": 4,
        "batch_size": 4,
        "steps": 1,
        "stages": {"one": {"model": model}, "two": {"model": {"start": "previous"}}},
    }
    squares = {"source": str(tmp_path / "squares"), "split": "valid", "settings": {"nbits": 8}}
    content = {
        "output": str(tmp_path / "study"),
        "recipe": recipe,
        "axes": {
            "vision": {"V16": on_stage_1(vision(16)), "V32": on_stage_1(vision(32))},
            "text": {"T16": on_stage_1(text(16)), "T32": on_stage_1(text(32))},
        },
        "evaluate": {f"R@{k}": {**squares, "measure": f"Recall@{k}"} for k in (1, 5, 10)},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return tmp_path / "study.yaml"


def changed(study, **changes):
    study.write_text(yaml.safe_dump(yaml.safe_load(study.read_text()) | changes, sort_keys=False))
    return scaling.read(study)


def test_every_combination_is_trained_and_measured_once(study, monkeypatch):
    folder = study.parent / "study"
    results = scaling.run(scaling.read(study), study, cpu=True, progress=False)
    assert [model["name"] for model in results["models"]] == ["V16-T16", "V16-T32", "V32-T16", "V32-T32"]
    assert results["left"] == [] and json.loads((folder / "results.json").read_text()) == results
    sizes = [model["parameters"]["total"] for model in results["models"]]
    assert sizes[0] == min(sizes) and sizes[3] == max(sizes) and len(set(sizes)) == 4
    saved = PreFLMR.from_pretrained(folder / "V32-T16" / "two" / "best")
    assert sum(one.numel() for one in saved.parameters()) == sizes[2]
    assert (saved.config.vision_config.hidden_size, saved.config.text_config.hidden_size) == (32, 16)
    for figure, circles in (("radar.svg", 0), ("sizes.svg", 12)):
        drawn = [element.tag for element in ElementTree.fromstring((folder / figure).read_text()).iter()]
        assert sum(tag.endswith("circle") for tag in drawn) == circles
    assert "| V32-T32 |" in scaling.table(results)
    monkeypatch.setattr(train, "step", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(scaling, "evaluate", lambda *_: pytest.fail("measured again"))
    assert scaling.run(scaling.read(study), study, cpu=True, progress=False) == results


def test_no_stage_is_begun_when_the_hours_are_over_and_the_rest_comes_later(study, monkeypatch):
    real, calls = train.run, []

    def spied(config, **more):
        calls.append(config.output)
        return real(config, **more)

    monkeypatch.setattr(train, "run", spied)
    results = scaling.run(changed(study, hours=1e-9), study, cpu=True, progress=False)
    assert len(calls) == 1 and results["models"] == []  # the first stage of the first model
    assert results["left"] == ["V16-T16", "V16-T32", "V32-T16", "V32-T32"]
    assert scaling.table(results) == "No model is trained yet.\n"
    calls.clear()
    results = scaling.run(changed(study, hours=10.0), study, cpu=True, progress=False)
    assert len(results["models"]) == 4 and results["left"] == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"axes": {"vision": {}}}, "axes must name values to choose from"),
        ({"evaluate": {}}, "evaluate must name at least one task"),
        ({"evaluate": {"a": {"source": "x", "settings": {"nprobe": 0}}}}, "nprobe must be at least 1, got 0"),
        ({"evaluate": {"a": {"source": "x", "settings": {"probes": 0}}}}, "unexpected keyword argument 'probes'"),
        ({"recipe": {"steps": 1}}, "model must have either start or config|output|missing"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(study, monkeypatch, changes, message):
    monkeypatch.setattr(train, "run", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        scaling.run(changed(study, **changes), study)
