"""The demo's command: what a seed reaches, and which folders it goes on with."""

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("transformers")

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import preflmr_demo as demo  # noqa: E402  # a script's folder, not a package


@pytest.fixture
def called(monkeypatch):
    """The demo with other arguments, in which no stage is trained: the recipes that it would have trained with."""

    def call(*arguments):
        recipes = []

        def run(config, **_):
            recipes.append(config)
            raise StopIteration

        monkeypatch.setattr(demo, "run", run)
        monkeypatch.setattr(sys, "argv", ["preflmr_demo.py", *map(str, arguments)])
        with pytest.raises((StopIteration, SystemExit)) as error:
            demo.main()
        return recipes, error.value

    return call


def begun(folder, **taught):
    """A folder in which the image encoder has been taught, and nothing else been done."""
    (folder / "start").mkdir(parents=True)
    (folder / "pictures").mkdir()
    (folder / "start" / "taught.json").write_text(json.dumps({"seconds": 1.0, **taught}))
    return folder


def test_a_seed_reaches_the_image_encoder_and_the_stages(called, monkeypatch, tmp_path):
    drawn = []

    def make_start(folder, options):
        drawn.append((options.seed, torch.randn(4).tolist()))
        begun(folder.parent / "made", seed=options.seed)
        (folder.parent / "made" / "start").rename(folder)

    monkeypatch.setattr(demo, "make_start", make_start)
    for seed in (0, 7, 7):
        folder = tmp_path / f"{len(drawn)}"
        recipes, error = called("--folder", folder, "--seed", seed)
        assert isinstance(error, StopIteration) and [one.seed for one in recipes] == [seed]
        assert drawn[-1][0] == seed
    assert drawn[1] == drawn[2] and drawn[0][1] != drawn[1][1]


@pytest.mark.parametrize(("taught", "seed"), [({"seed": 3}, 3), ({}, 0)])
def test_a_folder_is_gone_on_with_by_its_seed(called, tmp_path, taught, seed):
    recipes, error = called("--folder", begun(tmp_path, **taught), "--seed", seed)
    assert isinstance(error, StopIteration) and recipes[0].seed == seed


@pytest.mark.parametrize(("taught", "seed", "found"), [({"seed": 3}, 0, 3), ({"seed": 3}, 4, 3), ({}, 1, 0)])
def test_a_folder_of_another_seed_is_refused(called, tmp_path, taught, seed, found):
    recipes, error = called("--folder", begun(tmp_path, **taught), "--seed", seed)
    expected = f"--seed must be that of {tmp_path}, {found}, or --folder another one, got {seed}"
    assert not recipes and isinstance(error, SystemExit) and str(error) == expected


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(called, tmp_path, capsys, seed):
    recipes, _ = called("--folder", tmp_path / "new", f"--seed={seed}")
    assert not recipes and not (tmp_path / "new").exists()
    assert f"--seed must be at least 0 and less than 2**32, got {seed}" in capsys.readouterr().err
