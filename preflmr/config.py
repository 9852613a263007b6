"""What a PreFLMR model is made of: the fields of a published ``config.json``, with their defaults.

Published files hold nested fields only where they differ from these defaults. Fields of ours, absent there:
``vision_config.implementation``, ``vision_config.image_fit``, ``text_config.base_config``, and those of `ASKED`, which
are written where they differ.
"""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import transformers
from transformers import AutoConfig, PretrainedConfig

BERT_BASE = "bert-base-uncased"
# Who runs the vision encoder; with "features" there is none, and CLS features are given instead of pixels.
IMPLEMENTATIONS = ("transformers", "open_clip", "features")
IMAGE_FITS = ("crop", "pad")
# What transformer_mapping_config_base may override; the rest is that of BERT-base.
MAPPING_BASE = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
}


# How the model was trained to be asked.
ASKED = {"use_instructions": True, "without_image": "blank"}
WITHOUT_IMAGE = ("blank", "text")


class FLMRTextConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """The text encoder: a BERT of any size.

    ``text_encoder_base_model`` other than "bert-base-uncased" names another encoder of transformers, whose own config
    is kept in ``base_config``; ``hidden_size``, ``vocab_size`` and ``pad_token_id`` here are then that encoder's.
    """

    model_type = "flmr_text_model"
    base_config_key = "text_config"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    projection_dim: int = 0
    text_encoder_base_model: str = BERT_BASE
    query_maxlen: int = 32
    base_config: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_heads(self.hidden_size, self.num_attention_heads, "text_config")
        if self.position_embedding_type != "absolute":
            found = repr(self.position_embedding_type)
            raise ValueError(f"text_config.position_embedding_type must be 'absolute', got {found}")


class FLMRVisionConfig(PretrainedConfig):  # type: ignore[misc]
    """The vision encoder: a CLIP image encoder; ``implementation`` says whose code runs it.

    ``image_fit`` is how a picture becomes square: "crop", as published models do it, or "pad" with white.
    """

    model_type = "flmr_vision_model"
    base_config_key = "vision_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    implementation: str = "transformers"
    image_fit: str = "crop"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_heads(self.hidden_size, self.num_attention_heads, "vision_config")
        if self.implementation not in IMPLEMENTATIONS:
            allowed = " or ".join(map(repr, IMPLEMENTATIONS))
            raise ValueError(f"vision_config.implementation must be {allowed}, got {self.implementation!r}")
        if self.image_fit not in IMAGE_FITS:
            allowed = " or ".join(map(repr, IMAGE_FITS))
            raise ValueError(f"vision_config.image_fit must be {allowed}, got {self.image_fit!r}")
        if self.patch_size < 1 or self.image_size % self.patch_size:
            found = f"{self.image_size} and {self.patch_size}"
            raise ValueError(f"vision_config.image_size must be a multiple of patch_size, got {found}")
        if self.num_hidden_layers < 1:
            raise ValueError(f"vision_config.num_hidden_layers must be at least 1, got {self.num_hidden_layers}")

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return int((self.image_size // self.patch_size) ** 2)


class FLMRConfig(PretrainedConfig):  # type: ignore[misc]
    """PreFLMR or FLMR: two encoders, the mappings between them, and what becomes a row of a query or document.

    ``transformer_mapping_config_base`` is "bert-base-uncased" (built in), a dict of `MAPPING_BASE` fields, a folder
    with a ``config.json`` or such a file, also relative to the checkpoint, or else a model's name on the hub.

    ``use_instructions`` is whether an instruction goes before the question; ``without_image`` is what stands for an
    absent picture: "blank", a black one, or "text", nothing.
    """

    model_type = "flmr"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": FLMRTextConfig, "vision_config": FLMRVisionConfig}

    text_config: Any = None
    vision_config: Any = None
    mask_punctuation: bool = True
    mapping_network_prefix_length: int = 32
    dim: int = 128
    use_vision_encoder: bool = True
    initializer_range: float = 0.02
    separate_query_and_context_text_encoder: bool = False
    separate_query_and_context_vision_encoder: bool = False
    query_concat_output_from_vision_encoder: bool = True
    query_concat_output_from_text_encoder: bool = True
    context_concat_output_from_vision_encoder: bool = False
    context_concat_output_from_text_encoder: bool = True
    use_transformer_mapping_network: bool = False
    transformer_mapping_config_base: Any = None
    transformer_mapping_num_hidden_layers: int | None = None
    load_cpu_extension: bool = False
    mask_instruction_token: str | None = None
    transformer_mapping_cross_attention_length: int = 32
    vision_model_version: str = "openai/clip-vit-base-patch32"
    query_mask_input_ids_skip_list: list[int] = dataclasses.field(default_factory=list)
    use_instructions: bool = True
    without_image: str = "blank"

    def __post_init__(self, **kwargs: Any) -> None:
        for name, kind in self.sub_configs.items():
            given = getattr(self, name)
            if not isinstance(given, kind):
                setattr(self, name, kind(**(given.to_dict() if isinstance(given, PretrainedConfig) else given or {})))
        super().__post_init__(**kwargs)
        if self.dim < 1 or self.mapping_network_prefix_length < 1:
            found = f"{self.dim} and {self.mapping_network_prefix_length}"
            raise ValueError(f"dim and mapping_network_prefix_length must be positive, got {found}")
        if self.use_transformer_mapping_network and not self.use_vision_encoder:
            raise ValueError("use_transformer_mapping_network needs use_vision_encoder, which is False")
        self.query_mask_input_ids_skip_list = list(self.query_mask_input_ids_skip_list or [])
        if self.without_image not in WITHOUT_IMAGE:
            allowed = " or ".join(map(repr, WITHOUT_IMAGE))
            raise ValueError(f"without_image must be {allowed}, got {self.without_image!r}")

    @classmethod
    def from_pretrained(cls, name_or_path: Any, **kwargs: Any) -> Any:
        """As in transformers; the place is remembered: ``transformer_mapping_config_base`` may be relative to it."""
        found = super().from_pretrained(name_or_path, **kwargs)
        (found[0] if isinstance(found, tuple) else found).name_or_path = name_or_path
        return found

    def text_sides(self) -> tuple[str, ...]:
        """Who has a text encoder; without "context" it is the query's."""
        return ("query", "context") if self.separate_query_and_context_text_encoder else ("query",)

    def vision_sides(self) -> tuple[str, ...]:
        """Who has a vision encoder and an MLP mapping; without "context" they are the query's."""
        both = ("query", "context") if self.separate_query_and_context_vision_encoder else ("query",)
        return both if self.use_vision_encoder else ()

    def to_diff_dict(self) -> dict[str, Any]:
        """What ``config.json`` holds, as published files do: every field; of nested configs what is no default."""
        nested = ("sub_configs", *self.sub_configs)
        out = {name: getattr(self, name) for name in FLMRConfig.__annotations__ if name not in nested}
        for name, default in ASKED.items():
            if out[name] == default:
                del out[name]
        for name, kind in self.sub_configs.items():
            given, default = getattr(self, name), kind()
            fields = {field: getattr(given, field) for field in kind.__annotations__}
            out[name] = {field: value for field, value in fields.items() if value != getattr(default, field)}
            out[name]["model_type"] = kind.model_type
        dtype = str(self.dtype or "float32").removeprefix("torch.")
        about = {"model_type": self.model_type, "architectures": ["FLMRModelForRetrieval"], "torch_dtype": dtype}
        return out | about | {"transformers_version": transformers.__version__}

    def mapping_base(self) -> dict[str, Any]:
        """The sizes of the transformer mapping's layers: the fields of `MAPPING_BASE`, found where the config says.

        Raises:
            ValueError: its hidden size is not that of the text encoder, whose states it attends to.
        """
        found = _mapping_fields(self.transformer_mapping_config_base, str(self.name_or_path or ""))
        base = {name: found.get(name, default) for name, default in MAPPING_BASE.items()}
        if base["hidden_size"] != self.text_config.hidden_size:
            sizes = f"{base['hidden_size']} and {self.text_config.hidden_size}"
            raise ValueError(f"transformer_mapping_config_base and text_config must share hidden_size, got {sizes}")
        _check_heads(base["hidden_size"], base["num_attention_heads"], "transformer_mapping_config_base")
        return base


def mapping_base_file(base: object, checkpoint: str) -> Path | None:
    """The file that ``transformer_mapping_config_base`` names, as it is or relative to the checkpoint; or None."""
    if not isinstance(base, str):
        return None
    for folder in (Path(checkpoint or "."), Path(".")):
        for file in (folder / base / "config.json", folder / base):
            if file.is_file():
                return file
    return None


def _mapping_fields(base: object, checkpoint: str) -> dict[str, Any]:
    if base is None or base in (BERT_BASE, f"google-bert/{BERT_BASE}"):
        return {}
    if isinstance(base, dict):
        return base
    if isinstance(base, PretrainedConfig):
        return dict(base.to_dict())
    if not isinstance(base, str):
        raise TypeError(f"transformer_mapping_config_base must be a name, a path or a dict, got {type(base).__name__}")
    file = mapping_base_file(base, checkpoint)
    if file is None:
        return dict(AutoConfig.from_pretrained(base).to_dict())
    fields, _ = PretrainedConfig.get_config_dict(str(file))
    return dict(fields)


def _check_heads(hidden_size: int, heads: int, name: str) -> None:
    if hidden_size < 1 or heads < 1 or hidden_size % heads:
        raise ValueError(
            f"{name}.hidden_size must be a multiple of {name}.num_attention_heads, got {hidden_size} and {heads}"
        )


AutoConfig.register(FLMRConfig.model_type, FLMRConfig, exist_ok=True)
