"""Weights on disk: any known layout is read, the published one is written.

Files are ``model.safetensors`` or its shards with an index, the same as ``pytorch_model.bin``, or a single file that is
named, such as a Lightning ``.ckpt``. Nothing but tensors is ever unpickled.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import cached_file

from preflmr.config import FLMRConfig, mapping_base_file
from preflmr.weights import layouts
from preflmr.weights.open_clip import from_open_clip, to_open_clip

FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class CheckpointError(ValueError):
    """Weights do not fit the model.

    Args:
        missing: names that the model has and the checkpoint lacks.
        unexpected: names that no model of this config has.
        shapes: names whose shapes differ, with both shapes.
    """

    def __init__(self, missing: list[str], unexpected: list[str], shapes: list[str], hint: str = "") -> None:
        self.missing, self.unexpected, self.shapes = missing, unexpected, shapes
        found = [
            f"{len(names)} {what} ({_listed(names)})"
            for what, names in (("missing", missing), ("unknown", unexpected), ("of another shape", shapes))
            if names
        ]
        super().__init__(f"the checkpoint must hold the model's weights and no others, got {'; '.join(found)}{hint}")


def find(name_or_path: str | Path, file: str, **hub: Any) -> Path | None:
    """A file of a folder or of the hub, or None where there is none; an error if it can be neither."""
    if Path(name_or_path).is_dir():
        path = Path(name_or_path) / file
        return path if path.is_file() else None
    if Path(name_or_path).is_absolute() or str(name_or_path).startswith(".") or str(name_or_path).count("/") > 1:
        raise FileNotFoundError(f"{name_or_path}: there is no such folder, and it is no name on the hub")
    found = cached_file(str(name_or_path), file, _raise_exceptions_for_missing_entries=False, **hub)
    return None if found is None else Path(found)


def read(name_or_path: str | Path, **hub: Any) -> dict[str, Tensor]:
    """All tensors of a folder, a hub's repository or one file, by the names they have there.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: a file holds anything but tensors.
    """
    if Path(name_or_path).is_file():
        return _tensors(Path(name_or_path))
    for name in FILES:
        path = find(name_or_path, name, **hub)
        if path is None:
            continue
        if path.suffix != ".json":
            return _tensors(path)
        state: dict[str, Tensor] = {}
        for shard in sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())):
            piece = find(name_or_path, shard, **hub)
            if piece is None:
                raise FileNotFoundError(f"{path.name} names a shard that is not there: {shard}")
            state |= _tensors(piece)
        return state
    raise FileNotFoundError(f"name_or_path must hold one of {', '.join(FILES)}, got {str(name_or_path)!r}")


def load_into(
    model: nn.Module,
    config: FLMRConfig,
    state: Mapping[str, Tensor],
    *,
    lora_alpha: float | None = None,
) -> None:
    """Put weights of any known layout into a model; its tensors become these. Arguments and errors as of `fitting`."""
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.load_state_dict(fitting(model, config, state, lora_alpha=lora_alpha), strict=False, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])


def fitting(
    model: nn.Module,
    config: FLMRConfig,
    state: Mapping[str, Tensor],
    *,
    lora_alpha: float | None = None,
) -> dict[str, Tensor]:
    """Weights of any known layout, as a model's ``state_dict`` has them.

    Args:
        model: a `PreFLMR` of this config; only its shapes are looked at.
        config: says what is shared, and which code runs the vision encoder.
        state: weights by any known name.
        lora_alpha: of LoRA weights, see `layouts.published`.

    Raises:
        CheckpointError: names or shapes do not fit; it lists them all.
    """
    weights = layouts.published(state, lora_alpha)
    weights = layouts.untied(
        weights,
        text=not config.separate_query_and_context_text_encoder,
        vision=not config.separate_query_and_context_vision_encoder,
    )
    own = published_state(model, config)
    if not layouts.is_published(state):
        # ColBERT has no use for BERT's pooler, and neither have we.
        unused = {name: tensor for name, tensor in own.items() if "_text_encoder.bert_model.pooler." in name}
        weights = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in unused.items()} | weights
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{name}: {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if missing or unexpected or shapes:
        visual = [name for name in missing if "_vision_encoder." in name]
        alone = bool(visual) and not any("_vision_encoder." in name for name in weights)
        hint = "; it has no vision encoder, which can be given as vision=..." if alone else ""
        raise CheckpointError(missing, unexpected, shapes, hint)
    return _native(weights, config)


def published_state(model: nn.Module, config: FLMRConfig) -> dict[str, Tensor]:
    """A model's tensors by their published names, one name each, whatever code runs the vision encoder."""
    return _vision_renamed(model.state_dict(), config, from_open_clip)


def save(
    model: nn.Module,
    config: FLMRConfig,
    folder: str | Path,
    *,
    state: Mapping[str, Tensor] | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write weights and ``config.json``. Each file appears as a whole or not at all.

    Args:
        model: a `PreFLMR` of this config.
        config: what ``config.json`` will say.
        folder: made if it is not there; weights in it are replaced.
        state: the model's ``state_dict``, where another has gathered it.
        max_shard_size: bytes, or such as "5GB"; beyond, weights are split over several files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _vision_renamed(model.state_dict() if state is None else state, config, from_open_clip)
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=max_shard_size)
    for file, names in split.filename_to_tensors.items():
        # Beside and renamed: a file may be mapped into the very tensors that are written.
        save_file({name: tensors[name] for name in names}, folder / f".{file}.part", metadata={"format": "pt"})
    stale = [file for file in folder.iterdir() if _is_weights(file.name)]
    for file in split.filename_to_tensors:
        os.replace(folder / f".{file}.part", folder / file)
    index = folder / FILES[1]
    if split.is_sharded:
        content = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for file in stale:
        if file.name not in split.filename_to_tensors and not (split.is_sharded and file == index):
            file.unlink()
    config.dtype = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    _save_config(config, folder)


def _save_config(config: FLMRConfig, folder: Path) -> None:
    base = config.transformer_mapping_config_base
    file = mapping_base_file(base, str(config.name_or_path or ""))
    if file is not None and not Path(base).is_absolute():
        # Relative to the checkpoint, so it goes along.
        copy = folder / base / "config.json" if file.name == "config.json" else folder / base
        content = file.read_bytes()
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    text = json.dumps(config.to_diff_dict(), indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def _is_weights(name: str) -> bool:
    return name in FILES or (name.startswith("model-") and name.endswith(".safetensors"))


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"{path.name} must hold tensors and plain values alone, got: {error}") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping):
        raise ValueError(f"{path.name} must hold tensors by name, got {type(content).__name__}")
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _native(state: Mapping[str, Tensor], config: FLMRConfig) -> dict[str, Tensor]:
    return _vision_renamed(state, config, to_open_clip)


def _vision_renamed(state: Mapping[str, Tensor], config: FLMRConfig, rename: Any) -> dict[str, Tensor]:
    """Vision encoders by the names of the other code, where open_clip runs them; the rest as it is."""
    if not config.use_vision_encoder or config.vision_config.implementation != "open_clip":
        return dict(state)
    out = dict(state)
    for side in ("query", "context"):
        prefix = f"{side}_vision_encoder.vision_model.vision_model."
        part = {name.removeprefix(prefix): out.pop(name) for name in state if name.startswith(prefix)}
        out |= {prefix + name: tensor for name, tensor in rename(part).items()}
    return out


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, and {len(names) - most} more"
