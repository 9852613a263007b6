import json

import pytest

pytest.importorskip("transformers")

from transformers import AutoConfig

from preflmr import FLMRConfig, FLMRTextConfig, FLMRVisionConfig
from preflmr.config import MAPPING_BASE

# As ViT-G's, with what older versions of transformers leave in such files.
PUBLISHED = {
    "architectures": ["FLMRModelForRetrieval"],
    "auto_map": {"AutoConfig": "configuration_flmr.FLMRConfig", "AutoModel": "modeling_flmr.FLMRModelForRetrieval"},
    "dim": 128,
    "load_cpu_extension": False,
    "mapping_network_prefix_length": 32,
    "mask_instruction_token": ":",
    "model_type": "flmr",
    "separate_query_and_context_text_encoder": True,
    "text_config": {
        "architectures": ["BertForMaskedLM"],
        "gradient_checkpointing": False,
        "model_type": "flmr_text_model",
        "use_cache": True,
    },
    "torch_dtype": "float32",
    "transformer_mapping_config_base": "bert-base-uncased",
    "transformer_mapping_num_hidden_layers": 1,
    "transformers_version": "4.37.2",
    "use_transformer_mapping_network": True,
    "vision_config": {
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": 1664,
        "intermediate_size": 8192,
        "model_type": "flmr_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "patch_size": 14,
        "projection_dim": 1280,
    },
    "vision_model_version": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}


def test_defaults_are_those_of_flmr():
    config = FLMRConfig()
    assert (config.dim, config.mapping_network_prefix_length, config.mask_punctuation) == (128, 32, True)
    assert not config.use_transformer_mapping_network and not config.separate_query_and_context_text_encoder
    assert config.mask_instruction_token is None and config.query_mask_input_ids_skip_list == []
    assert (config.text_config.vocab_size, config.text_config.layer_norm_eps) == (30522, 1e-12)
    assert (config.vision_config.hidden_act, config.vision_config.patches) == ("quick_gelu", 49)
    FLMRConfig().query_mask_input_ids_skip_list.append(1)
    assert FLMRConfig().query_mask_input_ids_skip_list == []


def test_published_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, FLMRConfig)
    assert (config.vision_config.hidden_size, config.vision_config.patches) == (1664, 256)
    assert config.vision_config.implementation == "transformers"
    assert isinstance(config.text_config, FLMRTextConfig) and config.text_config.hidden_size == 768
    assert config.mapping_base() == MAPPING_BASE


def test_round_trip_writes_what_differs(tmp_path):
    config = FLMRConfig(**PUBLISHED)
    config.vision_config.implementation = "open_clip"
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["vision_config"] == {
        name: value for name, value in PUBLISHED["vision_config"].items() if name != "dropout"
    } | {"implementation": "open_clip"}
    assert written["text_config"] == {"model_type": "flmr_text_model"}
    assert "auto_map" not in written and written["torch_dtype"] == "float32"
    again = FLMRConfig.from_pretrained(tmp_path)
    assert again.to_diff_dict() == config.to_diff_dict()


def test_sides():
    assert FLMRConfig().text_sides() == FLMRConfig().vision_sides() == ("query",)
    both = FLMRConfig(separate_query_and_context_text_encoder=True, separate_query_and_context_vision_encoder=True)
    assert both.text_sides() == both.vision_sides() == ("query", "context")
    assert FLMRConfig(use_vision_encoder=False).vision_sides() == ()


@pytest.mark.parametrize("kind", ["dict", "folder", "file", "relative"])
def test_mapping_base_may_be_given_in_any_way(kind, tmp_path, monkeypatch):
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
    (tmp_path / "base").mkdir()
    file = tmp_path / "base" / "config.json"
    file.write_text(json.dumps({"model_type": "bert", **sizes}))
    base = {"dict": sizes, "folder": str(file.parent), "file": str(file), "relative": "base"}[kind]
    fields = {"text_config": {"hidden_size": 64, "num_attention_heads": 4}, "transformer_mapping_config_base": base}
    config = FLMRConfig(use_transformer_mapping_network=True, **fields)
    config.save_pretrained(tmp_path)
    config = FLMRConfig.from_pretrained(tmp_path)
    assert config.mapping_base() == MAPPING_BASE | sizes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": 0}, "dim and mapping_network_prefix_length must be positive, got 0 and 32"),
        ({"text_config": {"hidden_size": 10}}, "multiple of text_config.num_attention_heads, got 10 and 12"),
        ({"text_config": {"position_embedding_type": "relative_key"}}, "must be 'absolute', got 'relative_key'"),
        ({"vision_config": {"implementation": "timm"}}, "'transformers' or 'open_clip' or 'features', got 'timm'"),
        ({"vision_config": {"patch_size": 33}}, "must be a multiple of patch_size, got 224 and 33"),
        ({"vision_config": {"num_hidden_layers": 0}}, "at least 1, got 0"),
        ({"use_transformer_mapping_network": True, "use_vision_encoder": False}, "needs use_vision_encoder"),
    ],
)
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FLMRConfig(**fields)


def test_mapping_must_be_as_wide_as_the_text():
    config = FLMRConfig(text_config={"hidden_size": 384})
    with pytest.raises(ValueError, match="must share hidden_size, got 768 and 384"):
        config.mapping_base()
    with pytest.raises(TypeError, match="must be a name, a path or a dict, got int"):
        FLMRConfig(transformer_mapping_config_base=3).mapping_base()


def test_vision_config_of_another_kind_is_taken_over():
    given = FLMRVisionConfig(hidden_size=24, num_attention_heads=2)
    assert FLMRConfig(vision_config=given).vision_config is given
