import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from preflmr import FLMRVisionConfig  # noqa: E402
from preflmr.model.vision import VisionEncoder  # noqa: E402
from preflmr.weights.open_clip import from_open_clip, to_open_clip  # noqa: E402

SMALL = {
    "hidden_size": 24,
    "intermediate_size": 41,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 16,
}
# Published sizes, by the name of open_clip's model.
SIZES = {
    "ViT-B-32": (768, 3072, 12, 12, 32, 512),
    "ViT-L-14": (1024, 4096, 24, 16, 14, 768),
    "ViT-H-14": (1280, 5120, 32, 16, 14, 1024),
    "ViT-bigG-14": (1664, 8192, 48, 16, 14, 1280),
}


def pair(act):
    """The same random weights in both implementations, LayerNorms included."""
    torch.manual_seed(0)
    ours = VisionEncoder(FLMRVisionConfig(**SMALL, hidden_act=act)).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    other = VisionEncoder(FLMRVisionConfig(**SMALL, hidden_act=act, implementation="open_clip")).eval()
    state = to_open_clip(ours.vision_model.vision_model.state_dict())
    other.vision_model.vision_model.load_state_dict(state, strict=True)
    return ours, other


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_both_implementations_see_the_same(act):
    pytest.importorskip("open_clip")
    ours, other = pair(act)
    pixels = torch.randn(2, 3, 32, 32)
    found, expected = ours(pixels), other(pixels)
    assert found.last_hidden_state.shape == found.penultimate.shape == (2, 17, 24)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    back = from_open_clip(other.vision_model.vision_model.state_dict())
    state = ours.vision_model.vision_model.state_dict()
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)


def test_states_are_those_of_transformers():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    ours = VisionEncoder(FLMRVisionConfig(**SMALL)).eval()
    model = CLIPVisionModel(CLIPVisionConfig(**SMALL)).eval()
    getattr(model, "vision_model", model).load_state_dict(ours.vision_model.vision_model.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    states = model(pixels, output_hidden_states=True).hidden_states
    assert len(states) == 4
    found = ours(pixels)
    torch.testing.assert_close(found.last_hidden_state, states[-1])
    torch.testing.assert_close(found.penultimate, states[-2])


def test_published_names():
    names = VisionEncoder(FLMRVisionConfig(**SMALL)).state_dict()
    assert len(names) == 7 + 16 * 3
    assert all(name.startswith("vision_model.vision_model.") for name in names)
    assert "vision_model.vision_model.pre_layrnorm.weight" in names


@pytest.mark.parametrize("name", SIZES)
def test_full_sizes_are_open_clips(name):
    open_clip = pytest.importorskip("open_clip")
    from open_clip.model import _build_vision_tower

    hidden, intermediate, layers, heads, patch, projection = SIZES[name]
    fields = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers}
    fields |= {"num_attention_heads": heads, "patch_size": patch, "projection_dim": projection}
    settings = open_clip.get_model_config(name)
    with torch.device("meta"):
        theirs = _build_vision_tower(settings["embed_dim"], settings["vision_cfg"])
        ours = VisionEncoder(FLMRVisionConfig(**fields, hidden_act="gelu", implementation="open_clip"))
    expected = {name: tensor.shape for name, tensor in theirs.state_dict().items() if name != "proj"}
    found = {name: tensor.shape for name, tensor in ours.vision_model.vision_model.state_dict().items()}
    assert found == expected
    assert theirs.transformer.resblocks[0].attn.num_heads == heads


@pytest.mark.parametrize("implementation", ["transformers", "open_clip"])
def test_gradient_checkpointing_changes_nothing(implementation):
    pytest.importorskip("open_clip")
    torch.manual_seed(0)
    encoder = VisionEncoder(FLMRVisionConfig(**SMALL, implementation=implementation)).train()
    pixels = torch.randn(2, 3, 32, 32)
    found = []
    for checkpointing in (False, True):
        for module in encoder.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = checkpointing
                module._gradient_checkpointing_func = lambda function, *x: torch.utils.checkpoint.checkpoint(
                    function, *x, use_reentrant=False
                )
        encoder.zero_grad()
        out = encoder(pixels)
        (out.last_hidden_state.sin().sum() + out.penultimate.sin().sum()).backward()
        found.append([parameter.grad for parameter in encoder.parameters() if parameter.requires_grad])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_what_cannot_be_run_is_refused():
    pytest.importorskip("open_clip")
    encoder = VisionEncoder(FLMRVisionConfig(**SMALL))
    with pytest.raises(ValueError, match=r"pixel_values must be \[N, 3, 32, 32\], got \(1, 3, 32, 31\)"):
        encoder(torch.zeros(1, 3, 32, 31))
    with pytest.raises(ValueError, match="hidden_act must be quick_gelu or gelu, got 'relu'"):
        VisionEncoder(FLMRVisionConfig(**SMALL, hidden_act="relu", implementation="open_clip"))
    with pytest.raises(ValueError, match=r"attention_dropout 0 and num_channels 3, got 0.1 and 3"):
        VisionEncoder(FLMRVisionConfig(**SMALL, attention_dropout=0.1, implementation="open_clip"))
    with pytest.raises(ValueError, match=r"weights of open_clip's VisionTransformer, got 'head.weight'"):
        from_open_clip({"head.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"weights of transformers' CLIP vision model, got 'head.weight'"):
        to_open_clip({"head.weight": torch.zeros(1)})
