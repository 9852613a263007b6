"""What a query or document is made of: the inputs given for it, and the blocks of rows put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from preflmr.config import FLMRConfig
from preflmr.model import masks

Flags = bool | Sequence[bool] | None
ORDER = {"query": ("text", "vision"), "context": ("vision", "text")}


class Block(NamedTuple):
    """``[B, rows, dim]``, and ``[B, rows]`` bool of those that take part."""

    rows: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Given:
    """The inputs of `PreFLMR.query` or `PreFLMR.doc`, and their flags by block."""

    input_ids: Tensor | None
    attention_mask: Tensor | None
    pixel_values: Tensor | None
    image_features: Tensor | None
    flags: Mapping[str, Flags]

    @property
    def has_patches(self) -> bool:
        """Whether pictures are there with all that the transformer mapping needs of them."""
        return self.pixel_values is not None or (self.image_features is not None and self.image_features.ndim == 4)

    def wanted(self, config: FLMRConfig, side: str) -> dict[str, bool]:
        """Which blocks there are.

        Raises:
            ValueError: an input is absent that a flag asks for, or neither block is left.
        """
        pictures = self.pixel_values is not None or self.image_features is not None
        if not config.use_vision_encoder and (pictures or _any(self.flags["vision"])):
            raise ValueError("pixel_values or image_features must be absent: this model has no vision encoder")
        wanted = {
            "text": self._wanted(config, side, "text", self.input_ids is not None, "input_ids"),
            "vision": self._wanted(config, side, "vision", pictures, "pixel_values or image_features"),
        }
        if not any(wanted.values()):
            raise ValueError(f"a {side} must have text rows or vision rows, got input and flags that leave neither")
        return wanted

    def _wanted(self, config: FLMRConfig, side: str, block: str, given: bool, argument: str) -> bool:
        name, asked = f"concat_output_from_{block}_encoder", _any(self.flags[block])
        if asked is None:
            has = block == "text" or config.use_vision_encoder
            return has and given and bool(getattr(config, f"{side}_{name}"))
        if asked and not given:
            raise ValueError(f"{argument} must be given where {name} is True, got none")
        return asked

    def text(self, longest: int) -> tuple[Tensor, Tensor | None]:
        """Ids and attention mask, ``[B, tokens]``.

        Raises:
            ValueError: a shape is wrong.
        """
        ids, mask = self.input_ids, self.attention_mask
        assert ids is not None  # or no block would need it
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= longest:
            raise ValueError(f"input_ids must be [B, tokens], at most {longest} tokens, got {tuple(ids.shape)}")
        if mask is not None and mask.shape != ids.shape:
            shapes = f"{tuple(mask.shape)} and {tuple(ids.shape)}"
            raise ValueError(f"attention_mask must have the shape of input_ids, got {shapes}")
        return ids, mask

    def pixels(self, config: FLMRConfig) -> tuple[Tensor, int]:
        """``[B * R, 3, H, W]``, and R.

        Raises:
            ValueError: a shape is wrong, or pixels are not what this model takes.
        """
        assert self.pixel_values is not None
        if self.image_features is not None:
            raise ValueError("pixel_values and image_features must not be given together")
        if config.vision_config.implementation == "features":
            raise ValueError("image_features must be given, not pixel_values: this model has no vision encoder")
        return _flat(self.pixel_values, 4, "pixel_values must be [B, 3, H, W] or [B, R, 3, H, W]")

    def features(self, config: FLMRConfig) -> tuple[Tensor, int]:
        """``[B * R, hidden]``, or with patches ``[B * R, 1 + patches, hidden]``, and R.

        Raises:
            ValueError: a shape is wrong.
        """
        assert self.image_features is not None
        size = config.vision_config.hidden_size
        rule = f"image_features must be [B, {size}] or [B, R, {size}]"
        features, pictures = _flat(self.image_features, 3 if self.has_patches else 2, rule)
        if features.shape[-1] != size or (self.has_patches and features.shape[1] != 1 + config.vision_config.patches):
            raise ValueError(f"{rule}, got {tuple(features.shape)}")
        return features, pictures


def assembled(blocks: Mapping[str, Block], order: Sequence[str], flags: Mapping[str, Flags]) -> tuple[Tensor, Tensor]:
    """All rows ``[B, L, dim]``, zero where they take no part, and the mask ``[B, L]``.

    Raises:
        ValueError: blocks are not of equally many, or flags not as many.
    """
    names = [name for name in order if name in blocks]
    sizes = [len(blocks[name].rows) for name in names]
    if min(sizes) != max(sizes):
        raise ValueError(f"input_ids and pictures must be as many, got {sizes[0]} of {names[0]} and {sizes[1]}")
    parts = []
    for name in names:
        (rows, mask), each = blocks[name], flags[name]
        if each is not None and not isinstance(each, bool):
            mask = masks.flagged(mask, each, f"concat_output_from_{name}_encoder")
        parts.append((rows, mask))
    rows, mask = (torch.cat(some, dim=1) for some in zip(*parts, strict=True))
    return rows.masked_fill(~mask.unsqueeze(2), 0.0), mask


def _any(flags: Flags) -> bool | None:
    return flags if flags is None or isinstance(flags, bool) else any(flags)


def _flat(pictures: Tensor, axes: int, rule: str) -> tuple[Tensor, Any]:
    """``[B, ...]`` as it is, ``[B, R, ...]`` as ``[B * R, ...]``; and R."""
    if pictures.ndim not in (axes, axes + 1) or 0 in pictures.shape:
        raise ValueError(f"{rule}, got {tuple(pictures.shape)}")
    return (pictures, 1) if pictures.ndim == axes else (pictures.flatten(0, 1), pictures.shape[1])
