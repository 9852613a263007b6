"""Where a model comes from: a checkpoint of any known layout, or pretrained encoders of text and pictures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, CLIPVisionModel, PreTrainedModel
from transformers.initialization import no_init_weights

from preflmr.config import BERT_BASE, FLMRConfig, FLMRTextConfig, FLMRVisionConfig
from preflmr.model.text import BERT_FIELDS
from preflmr.model.tokenization import FLMRDocumentTokenizer, FLMRQueryTokenizer
from preflmr.model.vision import CLIP_FIELDS
from preflmr.weights import checkpoint, layouts
from preflmr.weights.open_clip import from_open_clip

HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download")
# Arguments of transformers' from_pretrained, and of its Auto classes, that change nothing here.
IGNORED = ("trust_remote_code", "code_revision", "low_cpu_mem_usage", "use_safetensors", "adapter_kwargs", "_from_auto")
# With one of these transformers loads the weights.
PLACED = ("device_map", "quantization_config", "max_memory", "offload_folder", "offload_buffers")


def load(
    cls: Any,
    name_or_path: str | Path,
    *,
    config: FLMRConfig | None = None,
    query_tokenizer: FLMRQueryTokenizer | None = None,
    document_tokenizer: FLMRDocumentTokenizer | None = None,
    context_tokenizer: FLMRDocumentTokenizer | None = None,
    vision: Any = None,
    lora_alpha: float | None = None,
    dtype: torch.dtype | str | None = None,
    **kwargs: Any,
) -> Any:
    """`PreFLMR.from_pretrained`: a model in evaluation mode.

    Published PreFLMR and FLMR checkpoints are read, RAVQA's Lightning checkpoints, and ColBERT's, which become a
    text-only model.

    Args:
        cls: `PreFLMR`.
        name_or_path: a folder, a file such as a ``.ckpt``, or a name on the hub.
        config: instead of the ``config.json`` there; where there is none it is guessed from the tensors.
        query_tokenizer: instead of that in the subfolder ``query_tokenizer``.
        document_tokenizer, context_tokenizer: instead of that in the subfolder ``context_tokenizer``.
        vision: the image encoder, for checkpoints without one; as for `start`.
        lora_alpha: of LoRA weights in a Lightning checkpoint, which are merged; None for the paper's.
        dtype: of the weights; None for that of the file.
        kwargs: for the hub: revision, token, cache_dir, local_files_only, force_download; attn_implementation, of both
            encoders where transformers runs them; device_map, quantization_config, max_memory, offload_folder and
            offload_buffers as in transformers, which then puts the weights where they go; or fields of the config.

    Raises:
        CheckpointError: weights are missing, unknown or of another shape.
        FileNotFoundError: there are no weights.
        TypeError: an argument is unknown.
    """
    hub = {name: kwargs.pop(name) for name in HUB if kwargs.get(name) is not None}
    dtype = kwargs.pop("torch_dtype", None) if dtype is None else dtype
    placed = {name: kwargs.pop(name) for name in PLACED if kwargs.get(name) is not None}
    fields = {name: value for name, value in kwargs.items() if name not in (*HUB, *IGNORED, *PLACED)}
    state = checkpoint.read(name_or_path, **hub)
    if config is None and (file := flmr_config(name_or_path, **hub)) is not None:
        config = FLMRConfig.from_pretrained(file.parent)
        if isinstance(base := config.transformer_mapping_config_base, str) and base != BERT_BASE:
            checkpoint.find(name_or_path, f"{base}/config.json", **hub)  # fetched, where it is relative to a repository
    elif config is None:
        config = guessed_config(name_or_path, state, **hub)
    if attention := fields.pop("attn_implementation", None):
        config._attn_implementation = attention
    for name, value in fields.items():
        if not hasattr(config, name):
            raise TypeError(f"from_pretrained got an argument that is no field of the config: {name!r}")
        setattr(config, name, value)
    if vision is not None:
        config.vision_config, seen = vision_encoder(vision, None)
        state |= _named(seen, "vision_encoder.vision_model.vision_model", config.vision_sides())
    given = {"query_tokenizer": query_tokenizer, "document_tokenizer": document_tokenizer or context_tokenizer}
    if placed:
        model = _placed(cls, config, state, lora_alpha, placed | ({} if dtype is None else {"dtype": dtype}))
        model.query_tokenizer, model.document_tokenizer = given.values()
    else:
        with no_init_weights():
            model = cls(config, **given)
        checkpoint.load_into(model, config, state, lora_alpha=lora_alpha)
    if model.query_tokenizer is None or model.document_tokenizer is None:
        found = tokenizers(name_or_path, config.text_config, **hub)
        model.query_tokenizer = model.query_tokenizer or found[0]
        model.document_tokenizer = model.document_tokenizer or found[1]
    model.name_or_path = str(name_or_path)
    if dtype is not None and dtype != "auto" and not placed:
        model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return model.eval()


def _placed(
    cls: Any, config: FLMRConfig, state: Mapping[str, Tensor], lora_alpha: float | None, arguments: dict[str, Any]
) -> Any:
    """A model whose weights transformers quantises, or spreads over devices."""
    device_map = arguments.get("device_map")
    if isinstance(device_map, Mapping) and "disk" in map(str, device_map.values()):
        raise ValueError("device_map must name devices, got 'disk': weights can be mapped from their file without it")
    with torch.device("meta"):
        shapes = cls(config)
    weights = checkpoint.fitting(shapes, config, state, lora_alpha=lora_alpha)
    load_weights: Any = PreTrainedModel.from_pretrained
    return load_weights.__func__(cls, None, config=config, state_dict=weights, **arguments)


def start(
    cls: Any,
    text: Any,
    vision: Any = None,
    *,
    tokenizer: Any = None,
    implementation: str | None = None,
    query_maxlen: int = 32,
    doc_maxlen: int = 512,
    **fields: Any,
) -> Any:
    """`PreFLMR.from_encoders`: a new model around pretrained encoders; what maps between them has random weights.

    Args:
        cls: `PreFLMR`.
        text: a model of transformers, its folder or name on the hub, or a config, then with random weights. The linear
            layer is taken over where it is a ColBERT's of this dim.
        vision: a CLIP image encoder of transformers or open_clip, the folder or name on the hub of the former, or a
            config, then with random weights; None for a model of texts alone.
        tokenizer: one of transformers, or the path of a ``vocab.txt``; None for that in ``text``'s folder.
        implementation: whose code runs the vision encoder, "transformers" or "open_clip"; None for ``vision``'s own.
        query_maxlen, doc_maxlen: how many tokens a query has, and a document at most.
        fields: of `FLMRConfig`; what is not given is as in published PreFLMR, with one text encoder for both sides.

    Raises:
        CheckpointError, TypeError, ValueError: something does not fit.
    """
    text_config, words = text_encoder(text)
    text_config.query_maxlen = query_maxlen
    fields = {"mask_instruction_token": ":", "use_vision_encoder": vision is not None} | fields
    seen: dict[str, Tensor] = {}
    if vision is not None:
        fields["vision_config"], seen = vision_encoder(vision, implementation)
        fields.setdefault("use_transformer_mapping_network", True)
        if fields["use_transformer_mapping_network"]:
            fields.setdefault("transformer_mapping_config_base", mapping_base(text_config))
            fields.setdefault("transformer_mapping_num_hidden_layers", 1)
    config = FLMRConfig(text_config=text_config, **fields)
    if tokenizer is None and isinstance(text, str | Path):
        tokenizer = AutoTokenizer.from_pretrained(str(text))
    model = cls(config)
    if tokenizer is not None:
        model.query_tokenizer = FLMRQueryTokenizer(tokenizer, query_maxlen)
        model.document_tokenizer = FLMRDocumentTokenizer(tokenizer, doc_maxlen)
    linear = linear_of(text, config.dim)
    state = checkpoint.published_state(model, config)
    state |= _named(words, "text_encoder.bert_model", config.text_sides())
    state |= _named(seen, "vision_encoder.vision_model.vision_model", config.vision_sides())
    state |= _named({} if linear is None else {"weight": linear}, "text_encoder_linear", config.text_sides())
    checkpoint.load_into(model, config, state)
    return model


def _named(state: Mapping[str, Tensor], module: str, sides: tuple[str, ...]) -> dict[str, Tensor]:
    """Weights as each side's own: copies, for two encoders share nothing, nor anything with the models given."""
    return {f"{side}_{module}.{name}": state[name].detach().clone() for side in sides for name in state}


def text_encoder(text: Any) -> tuple[FLMRTextConfig, dict[str, Tensor]]:
    """A text encoder's config and weights, the latter by names below ``bert_model.``.

    Args:
        text: a model of transformers; a folder or name on the hub of one; or a `FLMRTextConfig` or dict of its fields,
            which has no weights.
    """
    if isinstance(text, FLMRTextConfig | dict):
        return (FLMRTextConfig(**text) if isinstance(text, dict) else text), {}
    place = "" if isinstance(text, nn.Module) else str(text)
    model = text if isinstance(text, nn.Module) else AutoModel.from_pretrained(place)
    if not hasattr(model, "config"):
        raise TypeError(f"text must be a model of transformers, its place or a config, got {type(text).__name__}")
    fields = model.config.to_dict()
    if model.config.model_type == "bert":
        config = FLMRTextConfig(**{name: fields[name] for name in BERT_FIELDS})
    else:
        found = {name: getattr(model.config, name, None) for name in BERT_FIELDS}
        common = {name: value for name, value in found.items() if value is not None}
        kept = {name: value for name, value in fields.items() if not name.startswith("_") and name != "dtype"}
        config = FLMRTextConfig(**common, text_encoder_base_model=place or model.config.model_type, base_config=kept)
    return config, {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("position_ids")}


def vision_encoder(vision: Any, implementation: str | None) -> tuple[FLMRVisionConfig, dict[str, Tensor]]:
    """An image encoder's config and weights, the latter by transformers' names.

    Args:
        vision: a CLIP (vision) model of transformers, its folder or name on the hub; the ``visual`` of an open_clip
            model; or a `FLMRVisionConfig` or dict of its fields, which has no weights.
        implementation: whose code will run it; None for that of ``vision``.
    """
    choice = {} if implementation is None else {"implementation": implementation}
    if isinstance(vision, FLMRVisionConfig):
        vision = {name: getattr(vision, name) for name in (*CLIP_FIELDS, "implementation")}
    if isinstance(vision, dict):
        return FLMRVisionConfig(**vision | choice), {}
    if isinstance(vision, str | Path):
        vision = CLIPVisionModel.from_pretrained(str(vision))
    if hasattr(vision, "transformer") and hasattr(vision, "conv1"):
        return FLMRVisionConfig(**open_clip_fields(vision) | choice), from_open_clip(vision.state_dict())
    if not hasattr(vision, "config"):
        raise TypeError(f"vision must be a CLIP image encoder, its place or a config, got {type(vision).__name__}")
    config = getattr(vision.config, "vision_config", vision.config)
    network = getattr(vision, "vision_model", vision)
    state = {name.removeprefix("vision_model."): tensor for name, tensor in network.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}
    return FLMRVisionConfig(**{name: getattr(config, name) for name in CLIP_FIELDS} | choice), state


def open_clip_fields(visual: nn.Module) -> dict[str, Any]:
    """The fields of a `FLMRVisionConfig` that describe open_clip's VisionTransformer."""
    block = visual.transformer.resblocks[0]
    return {
        "hidden_size": visual.conv1.out_channels,
        "intermediate_size": block.mlp.c_fc.out_features,
        "projection_dim": visual.output_dim,
        "num_hidden_layers": len(visual.transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "image_size": visual.image_size[0],
        "patch_size": visual.patch_size[0],
        "hidden_act": "quick_gelu" if type(block.mlp.gelu).__name__ == "QuickGELU" else "gelu",
        "layer_norm_eps": visual.ln_pre.eps,
        "implementation": "open_clip",
    }


def mapping_base(text: FLMRTextConfig) -> str | dict[str, Any]:
    """What the transformer mapping's layers are like: those of BERT-base, or as wide as the text encoder."""
    if (text.hidden_size, text.num_attention_heads, text.intermediate_size) == (768, 12, 3072):
        return BERT_BASE
    sizes = ("hidden_size", "num_attention_heads", "intermediate_size", "layer_norm_eps")
    return {name: getattr(text, name) for name in sizes}


def guessed_config(name_or_path: str | Path, state: Mapping[str, Tensor], **hub: Any) -> FLMRConfig:
    """The config of weights that came without FLMR's: ColBERT's folder with BERT's config, or a Lightning checkpoint.

    Sizes are those of the tensors; heads are 64 wide if no config says otherwise. Without a vision encoder among the
    weights, but with a mapping, the model takes ``image_features``.

    Raises:
        ValueError: there is no text encoder among the weights.
    """
    names = layouts.published(state, lora_alpha=1.0)
    side = "context" if "context_text_encoder_linear.weight" in names else "query"
    words = names.get(f"{side}_text_encoder.bert_model.embeddings.word_embeddings.weight")
    linear = names.get(f"{side}_text_encoder_linear.weight")
    if words is None or linear is None:
        raise ValueError(
            f"config must be given: {str(name_or_path)!r} holds no BERT with a linear layer to guess it from"
        )
    layer = f"{side}_text_encoder.bert_model.encoder.layer."
    text = {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "num_hidden_layers": len({name.removeprefix(layer).split(".")[0] for name in names if name.startswith(layer)}),
        "num_attention_heads": max(1, words.shape[1] // 64),
        "intermediate_size": names[f"{layer}0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": len(names[f"{side}_text_encoder.bert_model.embeddings.position_embeddings.weight"]),
    }
    file = None if Path(name_or_path).is_file() else checkpoint.find(name_or_path, "config.json", **hub)
    if file is not None:
        said = json.loads(file.read_text(encoding="utf-8"))
        text |= {name: said[name] for name in BERT_FIELDS if name in said}
    fields: dict[str, Any] = {"dim": linear.shape[0], "text_config": text, "use_vision_encoder": False}
    first, last = (names.get(f"query_vision_projection.model.{number}.weight") for number in (0, 2))
    if first is not None and last is not None:
        vision = {"hidden_size": first.shape[1], "num_attention_heads": 1, "implementation": "features"}
        rows = last.shape[0] // linear.shape[0]
        fields |= {"use_vision_encoder": True, "vision_config": vision, "mapping_network_prefix_length": rows}
        fields["separate_query_and_context_vision_encoder"] = "context_vision_projection.model.0.weight" in names
    fields["separate_query_and_context_text_encoder"] = side == "context" and any(
        name.startswith("query_text_encoder.") for name in names
    )
    return FLMRConfig(**fields)


def flmr_config(name_or_path: str | Path, **hub: Any) -> Path | None:
    """The ``config.json`` there, if it is FLMR's."""
    file = None if Path(name_or_path).is_file() else checkpoint.find(name_or_path, "config.json", **hub)
    if file is None or json.loads(file.read_text(encoding="utf-8")).get("model_type") != FLMRConfig.model_type:
        return None
    return file


def linear_of(text: Any, dim: int, **hub: Any) -> Tensor | None:
    """The weight of ColBERT's linear layer, where ``text`` is the place of a ColBERT of this dim."""
    if not isinstance(text, str | Path):
        return None
    try:
        weight = checkpoint.read(text, **hub).get("linear.weight")
    except (OSError, ValueError):
        return None
    return weight if weight is not None and len(weight) == dim else None


def word_tokenizer(name_or_path: str | Path) -> Any:
    """The tokenizer of transformers at a place: of any model, of a checkpoint of ours, or of one of its subfolders."""
    for subfolder in ("query_tokenizer", ""):
        file = checkpoint.find(name_or_path, f"{subfolder}/tokenizer_config.json".lstrip("/"))
        if file is not None:
            kind = json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class")
            if subfolder or kind in (FLMRQueryTokenizer.published_class, FLMRDocumentTokenizer.published_class):
                return FLMRQueryTokenizer.from_pretrained(name_or_path, subfolder).tokenizer
    return AutoTokenizer.from_pretrained(str(name_or_path))


def tokenizers(
    name_or_path: str | Path, config: FLMRTextConfig, **hub: Any
) -> tuple[FLMRQueryTokenizer | None, FLMRDocumentTokenizer | None]:
    """The tokenizers of a checkpoint: its two subfolders, or the one vocabulary beside the weights, or none."""
    if Path(name_or_path).is_file():
        return None, None

    def place(subfolder: str) -> str | None:
        if checkpoint.find(name_or_path, f"{subfolder}/tokenizer_config.json", **hub) is not None:
            return subfolder
        return "" if checkpoint.find(name_or_path, "vocab.txt", **hub) is not None else None

    query, document, longest = place("query_tokenizer"), place("context_tokenizer"), config.max_position_embeddings
    return (
        None
        if query is None
        else FLMRQueryTokenizer.from_pretrained(name_or_path, query, min(config.query_maxlen, longest), **hub),
        None
        if document is None
        else FLMRDocumentTokenizer.from_pretrained(name_or_path, document, min(512, longest), **hub),
    )
