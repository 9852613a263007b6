"""Image encoders: CLIP by transformers, or the same network by open_clip, weights converted both ways.

What PreFLMR takes from one: the last layer's states, of which the CLS row is used, without the final LayerNorm; and the
states before the last layer, whose other rows are the patches.
"""

import re
from collections.abc import Mapping
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


_OPEN_CLIP_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights under transformers' names. ``proj``, which PreFLMR has no use for, is dropped.

    Raises:
        ValueError: a name is none of open_clip's VisionTransformer.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
        if name in _OPEN_CLIP_NAMES:
            out[_OPEN_CLIP_NAMES[name]] = tensor
        elif layer and (packed := re.fullmatch(r"attn\.in_proj_(weight|bias)", layer[2])):
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                out[f"encoder.layers.{layer[1]}.self_attn.{part}_proj.{packed[1]}"] = piece.clone()
        elif layer and layer[2].rpartition(".")[0] in _OPEN_CLIP_LAYER:
            module, _, kind = layer[2].rpartition(".")
            out[f"encoder.layers.{layer[1]}.{_OPEN_CLIP_LAYER[module]}.{kind}"] = tensor
        elif name != "proj":
            raise ValueError(f"state must hold weights of open_clip's VisionTransformer, got {name!r}")
    return out


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' weights under open_clip's names, the inverse of `from_open_clip`; ``proj`` is not among them.

    Raises:
        ValueError: a name is none of transformers' CLIP vision model.
    """
    names = {new: old for old, new in _OPEN_CLIP_NAMES.items()}
    modules = {new: old for old, new in _OPEN_CLIP_LAYER.items()}
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in names:
            out[names[name]] = tensor
        elif layer and layer[2] in modules:
            out[f"transformer.resblocks.{layer[1]}.{modules[layer[2]]}.{layer[3]}"] = tensor
        elif layer and layer[2] == "self_attn.q_proj":
            pieces = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            out[f"transformer.resblocks.{layer[1]}.attn.in_proj_{layer[3]}"] = torch.cat(pieces)
        elif not (layer and layer[2] in ("self_attn.k_proj", "self_attn.v_proj")):
            raise ValueError(f"state must hold weights of transformers' CLIP vision model, got {name!r}")
    return out
