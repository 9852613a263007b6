"""open_clip's names for the weights of a CLIP image encoder, and transformers' names for the same."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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
