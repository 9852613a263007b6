import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

from preflmr import ImageProcessor, blank_image  # noqa: E402

SIZES = [(50, 70), (70, 50), (224, 224), (300, 400), (33, 1000), (225, 224), (1, 1)]


def pictures():
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 255, (height, width, 3), dtype=np.uint8) for height, width in SIZES]
    return [Image.fromarray(array) for array in noise]


def test_pixels_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "CLIPImageProcessorPil"):
        pytest.skip("this version of transformers has no processor that uses PIL")
    processor = transformers.CLIPImageProcessorPil()
    shown = [*pictures(), blank_image()]
    expected = processor(images=shown, return_tensors="pt")["pixel_values"]
    assert torch.equal(ImageProcessor(224)(shown), torch.as_tensor(expected))


def test_small_pixels():
    found = ImageProcessor(64)(iter(pictures()))
    assert found.shape == (len(SIZES), 3, 64, 64) and found.dtype == torch.float32 and found.is_contiguous()


def test_blank_is_black_and_not_zero():
    assert blank_image().size == (336, 336)
    found = ImageProcessor(32)(blank_image())
    assert found.shape == (1, 3, 32, 32)
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    np.testing.assert_allclose(found[0, :, 0, 0], -mean / std, rtol=1e-6)
    assert (found == found[:, :, :1, :1]).all()


def test_other_modes_become_rgb():
    grey = Image.new("L", (40, 40), 128)
    assert torch.equal(ImageProcessor(32)(grey), ImageProcessor(32)(grey.convert("RGB")))
    assert ImageProcessor(32)(Image.new("RGBA", (40, 40))).shape == (1, 3, 32, 32)


def test_what_is_no_picture_is_refused():
    with pytest.raises(TypeError, match="pictures must be PIL images, got str at number 1"):
        ImageProcessor(32)([blank_image(), "a.png"])
    with pytest.raises(ValueError, match="image_size must be positive, got 0"):
        ImageProcessor(0)
