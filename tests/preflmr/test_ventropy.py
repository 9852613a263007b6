"""A study of squares: two checkpoints of intermediate training, two data sets."""

import json
from xml.etree import ElementTree

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import yaml  # noqa: E402
from training import write_squares  # noqa: E402

from preflmr.studies import figures, ventropy  # noqa: E402
from preflmr.training import train  # noqa: E402


@pytest.fixture
def study(make_tiny, tmp_path):
    """The file of a study."""
    make_tiny().save_pretrained(tmp_path / "start")
    for name in ("one", "two"):
        write_squares(tmp_path / name)
    common = {
        "learning_rates": {"mapping": 1e-3, "text_encoder": 1e-3},
        "queries_per_step": 4,
        "batch_size": 4,
        "data": {"negatives": 1, "source": str(tmp_path / "one")},
    }
    valid = {"source": str(tmp_path / "two"), "questions": 8}
    content = {
        "output": str(tmp_path / "study"),
        "start": str(tmp_path / "start"),
        "intermediate": {**common, "data": {**common["data"], "mix": {"one": {}}}},
        "every": 2,
        "times": 1,
        "finetune": common,
        "steps": 2,
        "validate_every": 1,
        "datasets": {"two": {"train": {"source": str(tmp_path / "two")}, "valid": valid}},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "study.yaml"


def test_entropies_are_those_of_the_runs_and_a_study_goes_on(study, monkeypatch):
    folder = study.parent / "study"
    results = ventropy.run(ventropy.read(study), study, cpu=True, progress=False)
    found = results["datasets"]["two"]
    for start in (0, 2):
        summary = json.loads((folder / "two" / f"from-{start:08d}" / "summary.json").read_text())
        losses = [values["two"] for values in summary["validation"].values()]
        assert len(losses) == 2 and found["entropy"][str(start)] == min(losses)
    assert found["information"] == {"0": 0.0, "2": found["entropy"]["0"] - found["entropy"]["2"]}
    recipe = json.loads((folder / "two" / "from-00000002" / "config.json").read_text())
    assert recipe["model"]["start"].endswith("intermediate/models/step-00000002")
    assert json.loads((folder / "results.json").read_text()) == results
    assert "| two | 2 |" in ventropy.table(results)
    ElementTree.fromstring((folder / "figure.svg").read_text())
    monkeypatch.setattr(train, "step", lambda *_: pytest.fail("trained again"))
    assert ventropy.run(ventropy.read(study), study, cpu=True, progress=False) == results


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stepss": 1}, "study.yaml: stepss is no key of a recipe, did you mean steps"),
        ({"datasets": {"two": {"train": {}}}}, "datasets.two must have train and valid, got train"),
        ({"validate_every": 3}, "steps must be a multiple of validate_every, got 2 and 3"),
        ({"finetune": {"queries": 1}}, "learning_rates is missing"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(study, monkeypatch, change, message):
    monkeypatch.setattr(train, "run", lambda *_, **__: pytest.fail("trained"))
    study.write_text(yaml.safe_dump(yaml.safe_load(study.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        ventropy.run(ventropy.read(study), study)


def test_figures_are_svg_that_shows_every_point():
    chart = figures.lines({"a<b": [(1, 2.0), (1e6, 3.0)], "c": [(10, -1.0)]}, title="t", x="x", y="y", logarithmic=True)
    names = [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(chart).iter()]
    assert names.count("circle") == 3 and "a&lt;b" in chart and ">1M<" in chart
    ring = figures.radar({"one": {"a": 1, "b": 2, "c": 3}, "two": {"a": 3, "b": 2, "c": 1}}, title="t")
    places = [element.get("points") for element in ElementTree.fromstring(ring).iter() if element.get("points")]
    assert len(places) == 5 and len(places[-1].split()) == 4
    for wrong, message in (
        ({"a": {"x": 1}}, "three axes"),
        ({"a": {"x": 1, "y": 1, "z": 1}, "b": {}}, "value for 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            figures.radar(wrong, title="t")
    with pytest.raises(ValueError, match="at least one point"):
        figures.lines({"a": []}, title="t", x="x", y="y")
