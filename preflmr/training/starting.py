"""What training starts from: a model, which of its parameters learn, and how fast."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import get_scheduler

from preflmr import retrievers
from preflmr.model import PreFLMR
from preflmr.model.pretrained import flmr_config, word_tokenizer
from preflmr.retrievers import adapted
from preflmr.retrievers.protocol import around
from preflmr.training import recipe
from preflmr.training.recipe import TrainConfig

ADAPTER = "lora"


def start_model(config: TrainConfig, model: Any = None) -> Any:
    """The model of a recipe, a `PreFLMR` or another retriever, or the given one; what no checkpoint fills is random by
    the seed.

    Raises:
        FileNotFoundError, OSError: a checkpoint is missing.
        ValueError: a checkpoint does not fit the config.
    """
    settings = config.model
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if model is None:
            model = _new(settings) if settings.start is None else retrievers.load(settings.start, settings.kind)
        if isinstance(model, PreFLMR):
            _set_lengths(model, settings)
            if settings.separate_text_encoders:
                model.separate_text_encoders()
            _tell(model.config, config)
        else:
            _refuse_what_flmr_has(adapted(model).name, config)
        if settings.lora is not None:
            add_adapters(adapted(model).model, settings.lora)
    return model


def choose_trained(model: Any, config: TrainConfig) -> list[dict[str, Any]]:
    """Freezes what the recipe does not name, and returns the optimizer's parameter groups, one a part.

    Raises:
        ValueError: the model lacks a part that should be trained.
    """
    retriever = adapted(model)
    module, parts = retriever.model, retriever.parts()
    module.requires_grad_(False)
    groups = []
    for part, rate in config.learning_rates.items():
        modules = parts[part]
        parameters: dict[str, nn.Parameter] = {}
        for name, parameter in module.named_parameters():
            if any(parameter is own for one in modules for own in one.parameters()) and _learns(name, part, config):
                parameters[name] = parameter.requires_grad_(True)
        if not parameters:
            raise ValueError(f"learning_rates names {part}, which this model does not have")
        groups.append({"params": list(parameters.values()), "lr": rate, "name": part})
    if config.gradient_checkpointing:
        # transformers 5 renamed it.
        name = "activation" if hasattr(module, "activation_checkpointing_enable") else "gradient"
        getattr(module, f"{name}_checkpointing_enable")({"use_reentrant": False})
    return groups


def set_training(model: Any, config: TrainConfig) -> None:
    """Training mode for what is trained; evaluation mode, so without dropout, for the rest."""
    retriever = adapted(model)
    retriever.model.train()
    if config.frozen_dropout:
        return
    for part, modules in retriever.parts().items():
        for module in modules:
            module.train(part in config.learning_rates)


def make_optimizer(groups: list[dict[str, Any]], config: TrainConfig, *, on_cpu: bool = False) -> torch.optim.Optimizer:
    """Adam or AdamW over the groups; with ``on_cpu``, for parameters that stay on a CPU, in one pass over them."""
    settings = config.optimizer
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    betas = (settings.betas[0], settings.betas[1])
    # Without `fused` torch chooses, which on a CPU is a loop of a dozen passes.
    return kind(groups, betas=betas, eps=settings.eps, weight_decay=settings.weight_decay, fused=on_cpu or None)


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> Any:
    """The learning rates over steps, relative to those of the groups."""
    kind = "constant_with_warmup" if config.optimizer.schedule == "constant" else config.optimizer.schedule
    return get_scheduler(kind, optimizer, config.optimizer.warmup, config.steps)


def save_model(model: Any, folder: Path) -> None:
    """Writes the model as a checkpoint of its own, adapters merged into what they adapt."""
    retriever = adapted(model)
    if any(hasattr(module, "lora_A") for module in retriever.model.modules()):
        retriever = around(retriever, merged_adapters(retriever.model))
    retriever.save(folder)


def _new(settings: recipe.Model) -> Any:
    fields = dict(settings.config or {})
    sizes = {name: fields.pop(name, None) for name in ("text_config", "vision_config")}
    text, vision = settings.text or sizes["text_config"], settings.vision or sizes["vision_config"]
    if text is None:
        raise ValueError("model must have text, or config.text_config for random weights, got neither")
    lengths = {"query_maxlen": settings.query_length or 32, "doc_maxlen": settings.document_length or 512}
    found = None
    if isinstance(text, str) and flmr_config(text) is not None:
        found = PreFLMR.from_pretrained(text)
        if found.query_tokenizer is None:
            raise ValueError(f"model.text must have its tokenizers, {text} has none")
        text, tokenizer = found.query_text_encoder.bert_model, found.query_tokenizer.tokenizer
    else:
        tokenizer = None
    if settings.tokenizer is not None:
        tokenizer = word_tokenizer(settings.tokenizer)
    model = PreFLMR.from_encoders(text, vision, tokenizer=tokenizer, **lengths, **fields)
    if found is not None:
        if found.config.dim != model.config.dim:
            sizes_of = f"{model.config.dim} and {found.config.dim}"
            raise ValueError(f"model.config.dim must be that of model.text, {settings.text}, got {sizes_of}")
        model.query_text_encoder_linear.load_state_dict(found.query_text_encoder_linear.state_dict())
    for name, said in sizes.items():
        for field, value in (said or {}).items():
            if (actual := getattr(getattr(model.config, name), field)) != value:
                raise ValueError(f"model.config.{name}.{field} must be that of the checkpoint, {actual}, got {value}")
    return model


def _tell(saved: Any, config: TrainConfig) -> None:
    """Has the checkpoint say what it is trained to score with, and how it is asked."""
    saved.query_concat_output_from_text_encoder = "text" in config.query_parts
    saved.query_concat_output_from_vision_encoder = "vision" in config.query_parts
    saved.use_instructions = config.data.use_instructions
    saved.without_image = "blank" if config.data.without_image == "blank" else "text"


def _set_lengths(model: Any, settings: recipe.Model) -> None:
    if settings.query_length is not None:
        model.query_tokenizer.max_length = model.config.text_config.query_maxlen = settings.query_length
    if settings.document_length is not None:
        model.document_tokenizer.max_length = settings.document_length


def _refuse_what_flmr_has(name: str, config: TrainConfig) -> None:
    """Settings that only PreFLMR and FLMR know."""
    settings, start = config.model, recipe.Model(start="any")
    fields = ("query_length", "document_length", "separate_text_encoders")
    given = [f"model.{field}" for field in fields if getattr(settings, field) != getattr(start, field)]
    given += ["data.cache_images"] if config.data.cache_images else []
    given += ["data.cache_documents"] if config.data.cache_documents else []
    given += ["query_parts"] if len(config.query_parts) < len(recipe.QUERY_PARTS) else []
    teacher = config.loss.distillation is not None and config.loss.distillation.teacher is not None
    given += ["loss.distillation.teacher"] if teacher else []
    if given:
        raise ValueError(f"{given[0]} is for PreFLMR and FLMR, got it for {name}")


def _learns(name: str, part: str, config: TrainConfig) -> bool:
    """With adapters, the text encoder's own weights do not."""
    if config.model.lora is None or part != "text_encoder" or "text_encoder_linear" in name:
        return ".pooler." not in name and ".post_layernorm." not in name  # in checkpoints, but never used
    return "lora_" in name


def add_adapters(model: Any, settings: recipe.Lora) -> None:
    """Puts adapters into the modules that the settings name; they alone learn there.

    Raises:
        ValueError: the model has no such modules, or one whose weight is that of another layer as well.
    """
    from peft import LoraConfig, inject_adapter_in_model

    adapters = LoraConfig(
        r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=settings.modules
    )
    inject_adapter_in_model(adapters, model, adapter_name=ADAPTER)
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for shared in names.values():
        adapted_ones = [name for name in shared if ".base_layer." in name]
        if adapted_ones and len(shared) > 1:
            rule = "lora.modules must name no layer whose weight is another's, too"
            raise ValueError(f"{rule}, got {adapted_ones[0].partition('.base_layer.')[0]}")


def merged_adapters(model: Any) -> Any:
    """A copy whose layers are plain ones again."""
    from peft.tuners.lora import LoraLayer

    merged = copy.deepcopy(model)
    for name, module in list(merged.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(adapter_names=[ADAPTER])
            parent, _, child = name.rpartition(".")
            setattr(merged.get_submodule(parent), child, module.get_base_layer())
    return merged
