"""Augmentation of drawn pictures, such as flags, icons and diagrams: what one artist drew, as another might have.

Used in a recipe's ``data.augment`` by name, like what `torchvision.transforms.v2` has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from preflmr.model.processing import on_square


class Redraw(v2.Transform):  # type: ignore[misc]  # torchvision is untyped here
    """Draws a picture again, a little differently, on a white square.

    One warp (scale, aspect, rotation, shear, shift, perspective, and now and then a wave, as of a flag in the wind),
    then colours: hue, saturation, darkness, contrast, none of which changes white. All amounts are greatest ones, of
    what is drawn uniformly.

    Args:
        size: pixels of a side of what comes out.
        scale: least and greatest size, where 1 fills the square.
        aspect: logarithm of the change of width against height, halved.
        rotate: degrees.
        shear, shift, perspective: in half sides of the square.
        waving: probability of a wave.
        wave: its height, in half sides of the square.
        shade: darker and lighter stripes along the wave.
        hue: in half turns of the colour wheel.
        saturation, contrast: relative.
        darkness: logarithm of the exponent (gamma).
        flip: probability of left for right.
        gray: probability of no colours.
        erase: probability that a box is painted over.
    """

    def __init__(
        self,
        size: int = 84,
        scale: tuple[float, float] = (0.75, 1.15),
        aspect: float = 0.25,
        rotate: float = 12.0,
        shear: float = 0.1,
        shift: float = 0.1,
        perspective: float = 0.1,
        waving: float = 0.5,
        wave: float = 0.2,
        shade: float = 0.2,
        hue: float = 0.06,
        saturation: float = 0.4,
        contrast: float = 0.3,
        darkness: float = 0.5,
        flip: float = 0.0,
        gray: float = 0.0,
        erase: float = 0.2,
    ) -> None:
        super().__init__()
        self.size, self.scale, self.aspect, self.rotate, self.shear, self.shift = (
            size, tuple(scale), aspect, rotate, shear, shift,
        )  # fmt: skip
        self.perspective, self.waving, self.wave, self.shade = perspective, waving, wave, shade
        self.hue, self.saturation, self.contrast, self.darkness = hue, saturation, contrast, darkness
        self.flip, self.gray, self.erase = flip, gray, erase

    def forward(self, picture: Any) -> Image.Image:
        """
        Args:
            picture: a PIL image of any size.
        """
        if not isinstance(picture, Image.Image):
            raise TypeError(f"Redraw takes a PIL image, got {type(picture).__name__}")
        square = on_square(picture.convert("RGB"))
        square = square.resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
        pixels = self._erase(self._colour(self._warp(pixels)))
        return Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy())

    def _warp(self, pixels: Tensor) -> Tensor:
        y, x = torch.meshgrid(*2 * (torch.linspace(-1, 1, self.size),), indexing="ij")
        away = 1 + _amount(self.perspective) * x + _amount(self.perspective) * y
        x, y = x / away - _amount(self.shift), y / away - _amount(self.shift)
        angle = math.radians(_amount(self.rotate))
        x, y = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
        x = x + _amount(self.shear) * y
        y = y + _amount(self.shear) * x
        scale, aspect = math.exp(_between(*map(math.log, self.scale))), math.exp(_amount(self.aspect))
        x, y = x / (scale * aspect), y / (scale / aspect)
        light = None
        if _happens(self.waving):
            phase = _between(0.35, 1.0) * math.pi * x + _amount(math.pi)
            y = y + _between(0.3, 1.0) * self.wave * phase.sin()
            x = x + _between(0.0, 0.4) * self.wave * (_between(0.3, 1.0) * math.pi * y + _amount(math.pi)).sin()
            light = 1 + _amount(self.shade) * (phase + _amount(1.0)).sin() * ((x.abs() < 1) & (y.abs() < 1))
        if _happens(self.flip):
            x = -x
        grid = torch.stack([x, y], -1)[None]
        # Of the negative, for what is outside is 0.
        drawn = 1 - functional.grid_sample(1 - pixels[None], grid, align_corners=True)[0]
        return drawn if light is None else drawn * light

    def _colour(self, pixels: Tensor) -> Tensor:
        gray = (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
        kept = 0.0 if _happens(self.gray) else 1 + _amount(self.saturation)
        pixels = gray + kept * (pixels - gray)
        pixels = (_turn(_amount(self.hue) * math.pi) @ pixels.flatten(1)).view_as(pixels)
        pixels = 1 - (1 - pixels.clamp(0, 1)) * (1 + _amount(self.contrast))
        turned: Tensor = pixels.clamp(1e-3, 1) ** math.exp(_amount(self.darkness))
        return turned

    def _erase(self, pixels: Tensor) -> Tensor:
        if _happens(self.erase):
            left, top = (int(self.size * _between(-0.1, 0.9)) for _ in range(2))
            width, height = (int(self.size * _between(0.1, 0.35)) for _ in range(2))
            pixels[:, max(top, 0) : top + height, max(left, 0) : left + width] = torch.rand(3, 1, 1)
        return pixels


def _turn(angle: float) -> Tensor:
    """``[3, 3]``: turns colours around the gray axis."""
    same, along, across = math.cos(angle), (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    a, b, c = same + along, along - across, along + across
    return torch.tensor([[a, b, c], [c, a, b], [b, c, a]])


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _amount(greatest: float) -> float:
    return _between(-greatest, greatest)


def _happens(probability: float) -> bool:
    return float(torch.rand(())) < probability
