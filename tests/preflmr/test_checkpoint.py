import json
import os
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModel  # noqa: E402

from preflmr import FLMRConfig, PreFLMR  # noqa: E402
from preflmr.weights.checkpoint import CheckpointError, read  # noqa: E402

PUBLISHED = Path(__file__).parent / "parity" / "preflmr_tiny"
FLMR = Path(__file__).parent / "parity" / "flmr_roi"
VISION = "vision_encoder.vision_model.vision_model."


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model, state):
    found = model.state_dict()
    assert found.keys() == state.keys()
    for name in state:
        assert torch.equal(found[name], state[name]), name


def with_weights(tmp_path, state, source=PUBLISHED):
    """A copy of a checkpoint with other weights."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.npz"))
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / "model.safetensors")
    return folder


def test_published_layout_round_trips(tmp_path):
    model = PreFLMR.from_pretrained(PUBLISHED)
    assert not model.training and all(p.dtype == torch.float32 for p in model.parameters())
    assert_same(model, load_file(PUBLISHED / "model.safetensors"))
    model.save_pretrained(tmp_path)
    expected, found = load_file(PUBLISHED / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    names = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    tokenizer = ("special_tokens_map.json", "tokenizer_config.json", "vocab.txt")
    assert names == sorted([
        "config.json", "mapping_base/config.json", "model.safetensors",
        *(f"{kind}_tokenizer/{file}" for kind in ("context", "query") for file in tokenizer),
    ])  # fmt: skip
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is PreFLMR and again.query_tokenizer.query_maxlen == 32
    assert_same(again, expected)


def test_tied_names_and_buffers_and_heads(tmp_path):
    state = load_file(PUBLISHED / "model.safetensors")
    expected = dict(state)
    for name in list(state):
        if name.startswith("query_vision_"):
            state[name.replace("query_", "context_", 1)] = state[name]
        if ".bert_model." in name:
            state[name.replace(".bert_model.", ".text_model.")] = state[name]
    state["query_text_encoder.bert_model.embeddings.position_ids"] = torch.arange(96)[None]
    state["query_text_encoder.cls.predictions.bias"] = torch.zeros(289)
    assert_same(PreFLMR.from_pretrained(with_weights(tmp_path, state)), expected)


def test_context_names_alone(tmp_path):
    state = load_file(PUBLISHED / "model.safetensors")
    renamed = {name.replace("query_vision_", "context_vision_", 1): tensor for name, tensor in state.items()}
    assert_same(PreFLMR.from_pretrained(with_weights(tmp_path, renamed)), state)


def test_shared_text_encoder(tmp_path):
    state = load_file(PUBLISHED / "model.safetensors")
    state = {name: tensor for name, tensor in state.items() if not name.startswith("context_text_")}
    folder = with_weights(tmp_path, state)
    model = PreFLMR.from_pretrained(folder, separate_query_and_context_text_encoder=False)
    assert_same(model, state)
    assert model.context_text_encoder is model.query_text_encoder
    with pytest.raises(CheckpointError) as caught:
        PreFLMR.from_pretrained(folder)
    assert len(caught.value.missing) == 40 and not caught.value.unexpected


def test_shards_and_bin(tmp_path):
    model = PreFLMR.from_pretrained(PUBLISHED)
    expected = state_of(model)
    model.save_pretrained(tmp_path, max_shard_size=100_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors" and len(shards) > 2
    assert index["weight_map"].keys() == expected.keys()
    again = PreFLMR.from_pretrained(tmp_path)
    assert_same(again, expected)
    again.save_pretrained(tmp_path)  # over the files its tensors may be mapped from
    assert not list(tmp_path.glob("model-*")) and not (tmp_path / "model.safetensors.index.json").exists()
    assert_same(PreFLMR.from_pretrained(tmp_path), expected)

    torch.save(expected, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert_same(PreFLMR.from_pretrained(tmp_path), expected)
    again.save_pretrained(tmp_path)
    assert not (tmp_path / "pytorch_model.bin").exists()

    again.save_pretrained(tmp_path, max_shard_size=100_000)
    (tmp_path / shards[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"names a shard that is not there: {shards[1]}"):
        PreFLMR.from_pretrained(tmp_path)


@pytest.mark.parametrize("separate", [False, True])
def test_lightning_checkpoint(tmp_path, separate):
    """RAVQA's: no vision encoder, which is given, or is not needed where features are."""
    published = load_file(FLMR / "model.safetensors")
    names = {
        "query_text_encoder.bert_model.": "model.query_encoder." if separate else "model.model.bert.",
        "query_text_encoder_linear.": "model.query_linear." if separate else "model.model.linear.",
        "query_vision_projection.": "model.vision_projection.",
    }
    if separate:
        names |= {"context_text_encoder.bert_model.": "model.model.bert."}
        names |= {"context_text_encoder_linear.": "model.model.linear."}
    state = {}
    for name, tensor in published.items():
        for prefix, theirs in names.items():
            if name.startswith(prefix) and "pooler" not in name:
                state[theirs + name.removeprefix(prefix)] = tensor
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [{"state": {}}]}, file)

    model = PreFLMR.from_pretrained(file)
    config = model.config
    assert (config.dim, config.mapping_network_prefix_length, config.text_config.num_hidden_layers) == (16, 4, 2)
    assert config.separate_query_and_context_text_encoder is separate
    assert config.vision_config.implementation == "features" and model.query_tokenizer is None
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, torch.zeros_like(tensor) if "pooler" in name else published[name]), name

    given = FLMRConfig.from_pretrained(FLMR)
    given.separate_query_and_context_text_encoder = separate
    vision = {name.removeprefix(f"query_{VISION}"): tensor for name, tensor in published.items() if VISION in name}
    with pytest.raises(CheckpointError, match="no vision encoder, which can be given as vision=") as caught:
        PreFLMR.from_pretrained(file, config=given)
    assert sorted(caught.value.missing) == sorted(f"query_{VISION}{name}" for name in vision)
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    clip = CLIPVisionModel(CLIPVisionConfig(**{name: getattr(given.vision_config, name) for name in sizes}))
    getattr(clip, "vision_model", clip).load_state_dict(vision)
    model = PreFLMR.from_pretrained(file, config=given, vision=clip)
    for name, tensor in vision.items():
        assert torch.equal(model.state_dict()[f"query_{VISION}{name}"], tensor)


def test_colbert(tmp_path):
    published = load_file(FLMR / "model.safetensors")
    state = {
        name.replace("query_text_encoder.bert_model.", "bert.").replace("query_text_encoder_linear.", "linear."): tensor
        for name, tensor in published.items()
        if name.startswith("query_text_encoder")
    }
    save_file(state, tmp_path / "model.safetensors")
    config = json.loads((PUBLISHED / "mapping_base" / "config.json").read_text()) | {"architectures": ["HF_ColBERT"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(FLMR / "vocab.txt", tmp_path)
    model = PreFLMR.from_pretrained(tmp_path)
    assert not model.config.use_vision_encoder and model.config.text_config.num_attention_heads == 4
    assert_same(model, {name: tensor for name, tensor in published.items() if name.startswith("query_text_encoder")})
    out = model.doc(**model.document_tokenizer(["a red bird"]))
    assert out.late_interaction_output.shape == (1, 96, 16)  # all positions that this BERT has


def test_a_name_on_the_hub(tmp_path):
    """From the cache that the hub's client keeps, without a network."""
    snapshot = tmp_path / "models--someone--model" / "snapshots" / "0123"
    PreFLMR.from_pretrained(PUBLISHED).save_pretrained(snapshot, max_shard_size=100_000)
    (tmp_path / "models--someone--model" / "refs").mkdir()
    (tmp_path / "models--someone--model" / "refs" / "main").write_text("0123")
    model = PreFLMR.from_pretrained("someone/model", cache_dir=tmp_path, local_files_only=True)
    assert_same(model, load_file(PUBLISHED / "model.safetensors"))
    assert model.query_tokenizer.query_maxlen == 32 and model.document_tokenizer.doc_maxlen == 96
    assert model.name_or_path == "someone/model"


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_either_vision_implementation(tmp_path, act):
    pytest.importorskip("open_clip")
    config = FLMRConfig.from_pretrained(PUBLISHED)
    config.vision_config.hidden_act, config.vision_config.implementation = act, "open_clip"
    published = load_file(PUBLISHED / "model.safetensors")
    model = PreFLMR.from_pretrained(PUBLISHED, config=config)
    assert f"query_{VISION}conv1.weight" in model.state_dict()
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == published.keys()
    assert all(torch.equal(written[name], published[name]) for name in published)
    again = PreFLMR.from_pretrained(tmp_path)
    assert again.config.vision_config.implementation == "open_clip"
    other = FLMRConfig.from_pretrained(PUBLISHED)
    other.vision_config.hidden_act = act
    other = PreFLMR.from_pretrained(PUBLISHED, config=other)
    q = model.query_tokenizer(["red: what"])
    rows = [one.query(**q, pixel_values=torch.ones(1, 3, 32, 32)).late_interaction_output for one in (again, other)]
    torch.testing.assert_close(*rows, rtol=1e-5, atol=1e-5)


def test_missing_and_unknown_weights_are_listed(tmp_path):
    state = load_file(PUBLISHED / "model.safetensors")
    gone = [name for name in state if ".encoder.layer.1." in name]
    for name in gone:
        del state[name]
    state["query_text_encoder_linear.bias"] = torch.zeros(16)
    state["transformer_mapping_output_linear.bias"] = torch.zeros(17)
    with pytest.raises(
        CheckpointError, match=r"got 32 missing \(.*, and 24 more\); 1 unknown \(.*\); 1 of another"
    ) as caught:
        PreFLMR.from_pretrained(with_weights(tmp_path, state))
    assert sorted(caught.value.missing) == sorted(gone)
    assert caught.value.unexpected == ["query_text_encoder_linear.bias"]
    assert caught.value.shapes == ["transformer_mapping_output_linear.bias: [17] instead of [16]"]


class Dangerous:
    def __reduce__(self):
        return (print, ("code of a checkpoint ran",))


def test_code_in_a_checkpoint_never_runs(tmp_path, capsys):
    torch.save({"state_dict": {"x": Dangerous()}}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"evil\.ckpt must hold tensors and plain values alone"):
        read(tmp_path / "evil.ckpt")
    assert "ran" not in capsys.readouterr().out


def test_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold one of model.safetensors, "):
        PreFLMR.from_pretrained(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    with pytest.raises(ValueError, match="must hold tensors by name, got list"):
        read(tmp_path / "list.bin")


def test_dtype_and_overrides(tmp_path):
    model = PreFLMR.from_pretrained(PUBLISHED, dtype="bfloat16", mask_punctuation=False)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters()) and not model.config.mask_punctuation
    model.save_pretrained(tmp_path)
    again = PreFLMR.from_pretrained(tmp_path)
    assert (
        again.dtype == torch.bfloat16
        and json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    )
    assert PreFLMR.from_pretrained(tmp_path, torch_dtype=torch.float32).dtype == torch.float32
    with pytest.raises(TypeError, match="no field of the config: 'dimension'"):
        PreFLMR.from_pretrained(PUBLISHED, dimension=3)
    empty = tmp_path / "other"
    model.save_pretrained(empty, is_main_process=False)
    assert not empty.exists()


def test_any_attention_of_transformers():
    models = [PreFLMR.from_pretrained(PUBLISHED, attn_implementation=kind) for kind in ("eager", "sdpa")]
    q = models[0].query_tokenizer(["red: what"])
    rows = [one.query(**q, pixel_values=torch.ones(1, 3, 32, 32)).late_interaction_output for one in models]
    assert models[0].query_text_encoder.bert_model.config._attn_implementation == "eager"
    torch.testing.assert_close(*rows, rtol=1e-5, atol=1e-5)


def test_what_was_frozen_stays_frozen():
    model = PreFLMR.from_pretrained(PUBLISHED)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) == 6 and all(".pooler." in name or ".post_layernorm." in name for name in frozen)


# By open_clip's names: hidden, intermediate, layers, heads, patch, act; tensors, parameters in millions.
FULL = {
    "ViT-B": ((768, 3072, 12, 12, 32, "quick_gelu", 512), 633, 326.7),
    "ViT-L": ((1024, 4096, 24, 16, 14, "quick_gelu", 768), 825, 543.2),
    "ViT-G": ((1664, 8192, 48, 16, 14, "gelu", 1280), 1209, 2084.6),
}


def vision_fields(sizes):
    names = "hidden_size intermediate_size num_hidden_layers num_attention_heads patch_size hidden_act projection_dim"
    return dict(zip(names.split(), sizes, strict=True))


@pytest.mark.parametrize("name", FULL)
def test_full_sizes(name):
    sizes, tensors, millions = FULL[name]
    config = FLMRConfig(
        separate_query_and_context_text_encoder=True,
        use_transformer_mapping_network=True,
        transformer_mapping_config_base="bert-base-uncased",
        transformer_mapping_num_hidden_layers=1,
        vision_config=vision_fields(sizes),
    )
    with torch.device("meta"):
        state = PreFLMR(config).state_dict()
    assert len(state) == tensors
    assert round(sum(tensor.numel() for tensor in state.values()) / 1e6, 1) == millions
    assert state["query_vision_projection.model.0.weight"].shape == (2048, sizes[0])
    assert state["transformer_mapping_network.layer.0.crossattention.self.key.weight"].shape == (768, 768)


def test_full_size_of_flmr():
    with torch.device("meta"):
        state = PreFLMR(FLMRConfig(text_config={"vocab_size": 30531, "query_maxlen": 512})).state_dict()
    assert len(state) == 403 and not any(name.startswith("context_") for name in state)


def test_a_path_that_is_not_there_is_not_asked_of_the_hub(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder, and it is no name on the hub"):
        read(tmp_path / "nothing")


def test_a_checkpoint_is_uploaded_when_it_is_asked(make_tiny, tmp_path, monkeypatch):
    calls = []

    class Hub:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, name, **more):
            calls.append(("repo", name, more))
            return type("Made", (), {"repo_id": f"me/{name}"})

        def upload_folder(self, **more):
            calls.append(("upload", more["repo_id"], more["commit_message"], sorted(os.listdir(more["folder_path"]))))

    monkeypatch.setattr("preflmr.weights.hub.HfApi", Hub)
    model = make_tiny()
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, private=True, token="t", commit_message="first")
    files = ["config.json", "context_tokenizer", "model.safetensors", "query_tokenizer"]
    assert calls == [
        ("token", "t"),
        ("repo", "mine", {"private": True, "exist_ok": True}),
        ("upload", "me/mine", "first", files),
    ]
    model.save_pretrained(tmp_path / "quiet", safe_serialization=True)
    assert len(calls) == 3
    for arguments, message in (
        ({"repo_id": "me/x"}, "got 'repo_id', which needs push_to_hub=True"),
        ({"variant": "fp16"}, "save_pretrained got 'variant'"),
        ({"safe_serialization": False}, "safe_serialization must be True"),
    ):
        with pytest.raises(TypeError, match=message):
            model.save_pretrained(tmp_path / "wrong", **arguments)
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_weights_go_where_a_device_map_says(make_tiny, tmp_path, device_map):
    model = make_tiny()
    model.save_pretrained(tmp_path / "saved")
    placed = PreFLMR.from_pretrained(tmp_path / "saved", device_map=device_map)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inputs = {**model.query_tokenizer(["find: a", "find: b"]), "pixel_values": pixels}
    with torch.no_grad():
        found, expected = placed.query(**inputs), model.query(**inputs)
    torch.testing.assert_close(found.late_interaction_output, expected.late_interaction_output)
    assert placed.query_tokenizer is not None and not placed.training
    with pytest.raises(ValueError, match="device_map must name devices, got 'disk'"):
        PreFLMR.from_pretrained(tmp_path / "saved", device_map={"query_vision_encoder": "disk", "": "cpu"})


def test_transformers_quantises_what_it_is_asked_to(make_tiny, tmp_path):
    """By a quantiser of our own, for those of others need their packages: linear layers of half as many bits."""
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    class Halves(torch.nn.Linear):
        pass

    @register_quantization_config("halves")
    class HalvesConfig(QuantizationConfigMixin):
        def __init__(self, quant_method="halves", **_):
            self.quant_method = quant_method

    @register_quantizer("halves")
    class HalvesQuantizer(HfQuantizer):
        requires_calibration = False
        is_trainable = True

        def is_serializable(self, **_):
            return True

        def _process_model_before_weight_loading(self, model, **_):
            for module in model.modules():
                if type(module) is torch.nn.Linear:
                    module.__class__ = Halves

        def _process_model_after_weight_loading(self, model, **_):
            for module in model.modules():
                if isinstance(module, Halves):
                    module.weight.data = module.weight.data.half().float()
            return model

    model = make_tiny()
    model.save_pretrained(tmp_path / "saved")
    quantised = PreFLMR.from_pretrained(tmp_path / "saved", quantization_config=HalvesConfig())
    assert isinstance(quantised.query_text_encoder_linear, Halves)
    weight = model.query_text_encoder_linear.weight
    assert torch.equal(quantised.query_text_encoder_linear.weight, weight.half().float())
    assert not torch.equal(quantised.query_text_encoder_linear.weight, weight)
