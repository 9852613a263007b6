"""Pictures to pixels, as the published models saw them: nothing is downloaded, everything is in the config.

RGB, shortest edge resized (bicubic), the centre cut out, values divided by 255 and normalised with CLIP's mean and
standard deviation. With ``fit="pad"``, nothing is cut off: the picture is put on a white square first.
"""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from preflmr.config import IMAGE_FITS

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ImageProcessor:
    """``processor(pictures) -> [B, 3, image_size, image_size]`` float32.

    >>> ImageProcessor(224)([blank_image()]).shape
    torch.Size([1, 3, 224, 224])
    """

    def __init__(self, image_size: int, fit: str = "crop") -> None:
        if image_size < 1:
            raise ValueError(f"image_size must be positive, got {image_size}")
        if fit not in IMAGE_FITS:
            raise ValueError(f"fit must be {' or '.join(map(repr, IMAGE_FITS))}, got {fit!r}")
        self.image_size, self.fit = image_size, fit

    def __call__(self, pictures: Image.Image | Iterable[Image.Image]) -> Tensor:
        """
        Args:
            pictures: PIL images, or one.

        Raises:
            TypeError: something is no PIL image.
        """
        pictures = [pictures] if isinstance(pictures, Image.Image) else list(pictures)
        pixels = np.empty((len(pictures), self.image_size, self.image_size, 3), np.float32)
        for number, picture in enumerate(pictures):
            if not isinstance(picture, Image.Image):
                raise TypeError(f"pictures must be PIL images, got {type(picture).__name__} at number {number}")
            pixels[number] = self._cut(picture)
        # Order and precision are those of transformers' processor: scaled in float64, normalised in float32.
        pixels -= np.asarray(MEAN, np.float32)
        pixels /= np.asarray(STD, np.float32)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def box(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is seen of a picture, which lies from 0 to 1 in both directions.

        >>> ImageProcessor(224).box((400, 200)), ImageProcessor(224, fit="pad").box((400, 200))
        ((0.25, 0.0, 0.75, 1.0), (0.0, -0.5, 1.0, 1.5))
        """
        side = max(size) if self.fit == "pad" else min(size)
        left, top = ((1 - side / length) / 2 for length in size)
        return left, top, 1 - left, 1 - top

    def _cut(self, picture: Image.Image) -> np.ndarray:
        size = self.image_size
        picture = picture.convert("RGB")
        if self.fit == "pad":
            picture = on_square(picture)
        short, long = sorted(picture.size)
        length = max(size, int(size * long / short))
        wide = (length, size) if picture.width > picture.height else (size, length)
        picture = picture.resize(wide, Image.Resampling.BICUBIC)
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        cut = np.asarray(picture.crop((left, top, left + size, top + size)))
        return (cut * (1 / 255)).astype(np.float32)


def on_square(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a white square as wide as its longer side."""
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def blank_image() -> Image.Image:
    """What stands for an absent picture: black, 336 x 336; not zeros once it is normalised."""
    return Image.new("RGB", (336, 336))
