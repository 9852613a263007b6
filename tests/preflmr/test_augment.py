"""preflmr/training/augment.py"""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")

from preflmr.model.processing import ImageProcessor, on_square  # noqa: E402
from preflmr.training.augment import Redraw  # noqa: E402
from preflmr.training.drawing import augmentation  # noqa: E402


def stripes() -> "Image.Image":
    flag = np.zeros((20, 40, 3), np.uint8)
    flag[:, :20, 0], flag[:, 20:, 2] = 255, 255
    return Image.fromarray(flag)


AMOUNTS = "aspect rotate shear shift perspective waving hue saturation contrast darkness erase"
STILL = dict.fromkeys(AMOUNTS.split(), 0.0)


def test_nothing_changes_where_all_amounts_are_0():
    out = np.asarray(Redraw(40, scale=(1.0, 1.0), **STILL)(stripes()))
    assert np.abs(out.astype(int) - np.asarray(on_square(stripes()))).max() <= 2


def test_margins_are_white_and_the_seed_decides():
    redraw = Redraw(48, erase=0.0, scale=(0.5, 0.5))
    pictures = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        pictures.append(np.asarray(redraw(stripes())))
    assert pictures[0].shape == (48, 48, 3)
    assert (pictures[0][0, 0] >= 254).all()
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] != pictures[2]).any()


def test_hue_keeps_gray_and_flip_mirrors():
    gray = Image.new("RGB", (8, 8), (100, 100, 100))
    turned = np.asarray(Redraw(8, scale=(1.0, 1.0), **{**STILL, "hue": 1.0})(gray))
    assert np.abs(turned.astype(int) - 100).max() <= 1
    flipped = np.asarray(Redraw(40, scale=(1.0, 1.0), flip=1.0, **STILL)(stripes()))
    assert flipped[20, 5, 2] > 250
    assert flipped[20, 35, 0] > 250


def test_a_recipe_names_it_and_other_things_are_refused():
    made = augmentation([{"Redraw": {"size": 16}}])
    assert made(stripes()).size == (16, 16)
    with pytest.raises(TypeError, match="PIL image, got int"):
        Redraw()(3)
    with pytest.raises(ValueError, match="Redraw refuses its arguments"):
        augmentation([{"Redraw": {"spin": 1}}])


def test_padding_instead_of_cropping():
    left, right = np.asarray(ImageProcessor(16, "pad")([stripes()])[0, 0])[8, [0, 15]]
    assert left > 1.5 > -1.5 > right  # red, and none of it
    top = np.asarray(ImageProcessor(16, "pad")([stripes()])[0])[:, 0, 8]
    assert (top > 1.8).all()  # white
    with pytest.raises(ValueError, match="fit must be 'crop' or 'pad', got 'stretch'"):
        ImageProcessor(16, "stretch")
