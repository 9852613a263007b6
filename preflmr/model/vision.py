"""Image encoders: CLIP by transformers, or the same network by open_clip, as the config says.

What PreFLMR takes from one: the last layer's states, of which the CLS row is used, without the final LayerNorm; and the
states before the last layer, whose other rows are the patches.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from preflmr.config import FLMRVisionConfig

CLIP_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
    "initializer_range",
    "initializer_factor",
)


class VisionOutput(NamedTuple):
    """
    Args:
        last_hidden_state: ``[N, 1 + patches, hidden]``, after the last layer, no LayerNorm on top.
        penultimate: the same before the last layer.
    """

    last_hidden_state: Tensor
    penultimate: Tensor


class VisionEncoder(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """An image encoder whose parameters have published names, ``vision_model.vision_model.*``, with transformers."""

    def __init__(self, config: FLMRVisionConfig) -> None:
        super().__init__()
        self.config = config
        # transformers' gradient_checkpointing_enable sets these two; its own layers have theirs.
        self.gradient_checkpointing = False
        self.vision_model = nn.Module()
        build = _transformers if config.implementation == "transformers" else _open_clip
        self.vision_model.vision_model = build(config)

    def forward(self, pixel_values: Tensor) -> VisionOutput:
        """
        Args:
            pixel_values: ``[N, channels, image_size, image_size]``.
        """
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"pixel_values must be [N, {', '.join(map(str, expected))}], got {tuple(pixel_values.shape)}"
            )
        network = self.vision_model.vision_model
        if self.config.implementation == "transformers":
            states = network.pre_layrnorm(network.embeddings(pixel_values))
            layers = network.encoder.layers
        else:
            states = network._embeds(pixel_values.to(network.conv1.weight.dtype))
            layers = network.transformer.resblocks
        before = states
        for layer in layers:
            before = states
            states = self._run(layer, states)
        return VisionOutput(states, before)

    def _run(self, layer: nn.Module, states: Tensor) -> Tensor:
        if self.config.implementation == "transformers":
            out = layer(states, None)
        elif self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            out = self._gradient_checkpointing_func(layer, states)
        else:
            out = layer(states)
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result


def _transformers(config: FLMRVisionConfig) -> nn.Module:
    base = CLIPVisionConfig(**{name: getattr(config, name) for name in CLIP_FIELDS})
    base._attn_implementation = config._attn_implementation
    network = CLIPVisionModel(base)
    network = getattr(network, "vision_model", network)  # before transformers 5, one level deeper
    # In the checkpoint, and never used: without gradients, for distributed training would wait for them.
    network.post_layernorm.requires_grad_(False)
    return network


def _open_clip(config: FLMRVisionConfig) -> nn.Module:
    from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

    activations = {"quick_gelu": QuickGELU, "gelu": nn.GELU}
    if config.hidden_act not in activations:
        raise ValueError(f"open_clip's hidden_act must be {' or '.join(activations)}, got {config.hidden_act!r}")
    if config.attention_dropout or config.num_channels != 3:
        found = f"{config.attention_dropout} and {config.num_channels}"
        raise ValueError(f"open_clip needs attention_dropout 0 and num_channels 3, got {found}")

    def norm(size: int) -> nn.Module:
        return LayerNorm(size, eps=config.layer_norm_eps)

    network = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_ratio=(config.intermediate_size + 0.5) / config.hidden_size,  # rounded down there
        output_dim=config.projection_dim,
        act_layer=activations[config.hidden_act],
        norm_layer=norm,
    )
    network.ln_post.requires_grad_(False)
    network.proj = None  # into the space of CLIP's texts, which PreFLMR has no use for
    return network
