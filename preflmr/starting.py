"""What training starts from: a model, which of its parameters learn, and how fast."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, CLIPVisionModel, get_scheduler

from preflmr import recipe
from preflmr.config import FLMRConfig
from preflmr.model import PreFLMR
from preflmr.recipe import TrainConfig
from preflmr.tokenization import FLMRDocumentTokenizer, FLMRQueryTokenizer
from preflmr.vision import to_open_clip

ADAPTER = "lora"


def start_model(config: TrainConfig, model: Any = None) -> Any:
    """The model of a recipe, or the given one; what no checkpoint fills is random by the seed.

    Raises:
        FileNotFoundError, OSError: a checkpoint is missing.
        ValueError: a checkpoint does not fit the config.
    """
    settings = config.model
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if model is None:
            model = _new(settings) if settings.start is None else PreFLMR.from_pretrained(settings.start)
        if settings.separate_text_encoders:
            model.separate_text_encoders()
        if settings.lora is not None:
            _add_adapters(model, settings.lora)
    return model


def choose_trained(model: Any, config: TrainConfig) -> list[dict[str, Any]]:
    """Freezes what the recipe does not name, and returns the optimizer's parameter groups, one a part.

    Raises:
        ValueError: the model lacks a part that should be trained.
    """
    model.requires_grad_(False)
    groups = []
    for part, rate in config.learning_rates.items():
        modules = model.parts()[part]
        parameters: dict[str, nn.Parameter] = {}
        for name, parameter in model.named_parameters():
            if any(parameter is own for module in modules for own in module.parameters()) and _learns(name, config):
                parameters[name] = parameter.requires_grad_(True)
        if not parameters:
            raise ValueError(f"learning_rates names {part}, which this model does not have")
        groups.append({"params": list(parameters.values()), "lr": rate, "name": part})
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return groups


def set_training(model: Any, config: TrainConfig) -> None:
    """Training mode for what is trained; evaluation mode, so without dropout, for the rest."""
    model.train()
    if config.frozen_dropout:
        return
    for part, modules in model.parts().items():
        for module in modules:
            module.train(part in config.learning_rates)


def make_optimizer(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW over the groups."""
    settings = config.optimizer
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    betas = (settings.betas[0], settings.betas[1])
    return kind(groups, betas=betas, eps=settings.eps, weight_decay=settings.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> Any:
    """The learning rates over steps, relative to those of the groups."""
    kind = "constant_with_warmup" if config.optimizer.schedule == "constant" else config.optimizer.schedule
    return get_scheduler(kind, optimizer, config.optimizer.warmup, config.steps)


def save_model(model: Any, folder: Path) -> None:
    """Writes the model as a checkpoint of its own, adapters merged into what they adapt."""
    if any(hasattr(module, "lora_A") for module in model.modules()):
        model = _merged(model)
    model.save_pretrained(folder)


def _new(settings: recipe.Model) -> Any:
    assert settings.config is not None
    config = FLMRConfig(**settings.config)
    source = settings.tokenizer or settings.text
    if source is None:
        raise ValueError("model.tokenizer must say where the tokenizers come from where there is no model.text")
    model = PreFLMR(config, *_tokenizers(source, config))
    if settings.text is not None:
        _load_text(model, settings.text)
    if settings.vision is not None:
        _load_vision(model, settings.vision)
    return model


def _tokenizers(source: str, config: FLMRConfig) -> tuple[FLMRQueryTokenizer, FLMRDocumentTokenizer]:
    has_own = (Path(source) / "query_tokenizer").is_dir()
    names = ("query_tokenizer", "context_tokenizer") if has_own else ("", "")
    length = config.text_config.query_maxlen
    return (
        FLMRQueryTokenizer.from_pretrained(source, names[0], query_maxlen=length),
        FLMRDocumentTokenizer.from_pretrained(source, names[1]),
    )


def _load_text(model: Any, source: str) -> None:
    if (Path(source) / "query_tokenizer").is_dir():
        found = PreFLMR.from_pretrained(source)
        _copy(model.query_text_encoder, found.query_text_encoder.state_dict(), source)
        _copy(model.query_text_encoder_linear, found.query_text_encoder_linear.state_dict(), source)
        return
    _copy(model.query_text_encoder.bert_model, AutoModel.from_pretrained(source).state_dict(), source)


def _load_vision(model: Any, source: str) -> None:
    found = CLIPVisionModel.from_pretrained(source)
    weights = getattr(found, "vision_model", found).state_dict()
    if model.config.vision_config.implementation == "open_clip":
        weights = to_open_clip(weights)
    _copy(model.query_vision_encoder.vision_model.vision_model, weights, source)


def _copy(module: nn.Module, weights: dict[str, Any], source: str) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit model.config: {error}") from None


def _learns(name: str, config: TrainConfig) -> bool:
    """With adapters, the text encoder's own weights do not."""
    if config.model.lora is None or "text_encoder." not in name:
        return ".pooler." not in name and ".post_layernorm." not in name  # in checkpoints, but never used
    return "lora_" in name


def _add_adapters(model: Any, settings: recipe.Lora) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    adapters = LoraConfig(
        r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=settings.modules
    )
    inject_adapter_in_model(adapters, model, adapter_name=ADAPTER)


def _merged(model: Any) -> Any:
    """A copy whose layers are plain ones again."""
    from peft.tuners.lora import LoraLayer

    merged = copy.deepcopy(model)
    for name, module in list(merged.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(adapter_names=[ADAPTER])
            parent, _, child = name.rpartition(".")
            setattr(merged.get_submodule(parent), child, module.get_base_layer())
    return merged
