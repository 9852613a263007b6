"""States of pictures under a frozen vision encoder: each picture is encoded once."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from preflmr.model.packed import PackedLinear
from preflmr.retrievers import adapted


class ImageStates:
    """What a vision encoder makes of pixels, in memory; stages of training that share one share these.

    Pixels are known by their digest, so it does not matter which data set they come from, nor how they were augmented.
    They are kept for one encoder: `begin` with another one, or with another precision, forgets them.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._precision = "no"
        self._encoder = b""
        self._kept: dict[bytes, Tensor] = {}
        self._packed = PackedLinear()

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, model: Any, precision: str = "no") -> None:
        """Encode with this model from now on.

        Args:
            model: a PreFLMR, whose vision encoder does not change until the next call.
            precision: that it is used in: "no", or "bf16" or "fp16", with which states are kept in half precision.
        """
        digest = blake2b(precision.encode())
        for part in adapted(model).parts()["vision_encoder"]:
            for name, tensor in part.state_dict().items():
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(_bytes(tensor))
        if digest.digest() != self._encoder:
            self._kept.clear()
        self._model, self._precision, self._encoder = model, precision, digest.digest()

    def of(self, pixels: Tensor) -> list[Tensor]:
        """``[N, 3, H, W]`` to N states ``[1 + patches, hidden]`` on the CPU; what is not known yet is encoded."""
        keys = [blake2b(_bytes(one)).digest() for one in pixels]
        new = list({key: n for n, key in enumerate(keys) if key not in self._kept}.values())
        if new:
            with torch.no_grad(), self._packed:
                states = self._model.image_states(pixels[new])
            if self._precision != "no":
                states = states.half()
            self._kept.update(zip((keys[n] for n in new), states.cpu().unbind(), strict=True))
        return [self._kept[key] for key in keys]


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
