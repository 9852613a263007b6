"""Trackers, and what is uploaded with a model."""

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training import recipe, write_squares  # noqa: E402

from preflmr.training import tracking, train  # noqa: E402
from preflmr.training.recipe import TrainConfig  # noqa: E402
from preflmr.training.recipe_file import build  # noqa: E402


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("squares") / "data")


@pytest.fixture
def uploads(monkeypatch):
    found = []
    monkeypatch.setattr(tracking.hub, "upload", lambda folder, name, **kwargs: found.append((folder, name, kwargs)))
    return found


def test_the_best_model_is_uploaded_with_a_card(make_tiny, squares, tmp_path, uploads):
    from huggingface_hub import ModelCard

    checks = {"every": 2, "tasks": {"seen": {"source": str(squares), "measure": "Recall@5"}}, "select": "seen"}
    settings = recipe(tmp_path / "run", squares, hub="somebody/small", tracker="none", steps=2, validation=checks)
    train.run(build(TrainConfig, settings), model=make_tiny(), cpu=True, progress=False)
    ((folder, name, kwargs),) = uploads
    assert (folder, name) == (tmp_path / "run/best", "somebody/small") and kwargs["commit_message"] == "2 steps of run"
    card = ModelCard.load(folder / "README.md")
    value = json.loads((tmp_path / "run/summary.json").read_text())["validation"]["2"]["seen"]
    assert f"| seen | Recall@5 | {value:.4f} |" in card.text and "steps: 2" in card.text
    assert card.data.library_name == "preflmr" and "late-interaction" in card.data.tags
    assert not (tmp_path / "run/logs").exists()


def test_a_resumed_run_may_have_another_tracker(make_tiny, squares, tmp_path, uploads):
    settings = recipe(tmp_path / "run", squares, steps=2, save_every=1, tracker="none")
    train.run(build(TrainConfig, settings), model=make_tiny(), cpu=True, progress=False)
    (tmp_path / "run/summary.json").unlink()
    config = build(TrainConfig, {**settings, "tracker": "tensorboard", "hub": "somebody/small"})
    train.run(config, model=make_tiny(), resume=True, cpu=True, progress=False)
    assert len(uploads) == 1 and "It was not validated." in (tmp_path / "run/best/README.md").read_text()


def test_weights_and_biases(make_tiny, squares, tmp_path, monkeypatch):
    """Offline: what would be sent lies in the run's folder, with every loss of the log."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = recipe(tmp_path / "run", squares, steps=3, log_every=1, tracker="wandb", project="squares")
    train.run(build(TrainConfig, settings), model=make_tiny(), cpu=True, progress=False)
    (sent,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert len(set(losses)) == 3
    content = sent.read_bytes()  # records, in which values are JSON
    places = [content.find(json.dumps(loss).encode()) for loss in losses]
    assert 0 < places[0] < places[1] < places[2] and b"squares" in content


def test_an_unknown_tracker_is_refused(squares, tmp_path):
    with pytest.raises(ValueError, match="tracker must be one of tensorboard, wandb, none, got 'mlflow'"):
        build(TrainConfig, recipe(tmp_path / "run", squares, tracker="mlflow"))
