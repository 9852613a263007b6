"""States of pictures are made once for an encoder, and never of another one."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from preflmr.training.image_states import ImageStates  # noqa: E402


@pytest.fixture
def model(make_tiny, monkeypatch):
    """A model that counts the pictures that it encodes in ``model.encoded``."""
    made = make_tiny().eval()
    made.encoded, encode = [], made.image_states
    monkeypatch.setattr(made, "image_states", lambda pixels: made.encoded.append(len(pixels)) or encode(pixels))
    return made


def pixels(model, n, seed=0):
    size = model.config.vision_config.image_size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_each_picture_is_encoded_once(model):
    states, given = ImageStates(), pixels(model, 4)
    states.begin(model)
    with torch.no_grad():
        expected = model.image_states(given)
    model.encoded.clear()
    found = states.of(given[[0, 1, 0]])
    assert torch.allclose(torch.stack(found), expected[[0, 1, 0]], atol=1e-6) and model.encoded == [2]
    found = states.of(given[[3, 1, 2]])
    assert torch.allclose(torch.stack(found), expected[[3, 1, 2]], atol=1e-6) and model.encoded == [2, 2]
    assert len(states) == 4 and not found[0].requires_grad
    states.begin(model)  # another stage
    assert torch.equal(torch.stack(states.of(given)), torch.stack(states.of(given))) and model.encoded == [2, 2]


def test_pictures_that_differ_in_one_number_are_two(model):
    states, given = ImageStates(), pixels(model, 1).repeat(2, 1, 1, 1)
    states.begin(model)
    given[1, 2, -1, -1] += 1.0
    one, other = states.of(given)
    assert len(states) == 2 and not torch.equal(one, other)


def test_another_encoder_forgets_them_and_another_mapping_does_not(model, make_tiny):
    states, given = ImageStates(), pixels(model, 2)
    states.begin(model)
    before = states.of(given)
    with torch.no_grad():
        model.query_vision_projection.model[0].weight += 1.0
    states.begin(model)
    assert len(states) == 2
    with torch.no_grad():
        next(model.query_vision_encoder.parameters()).normal_()
    states.begin(model)
    assert len(states) == 0
    assert not torch.allclose(before[0], states.of(given)[0], atol=1e-4)


def test_half_precision_is_kept_apart(model):
    states, given = ImageStates(), pixels(model, 2)
    states.begin(model, "bf16")
    assert all(one.dtype == torch.float16 for one in states.of(given))
    states.begin(model)
    assert len(states) == 0 and all(one.dtype == torch.float32 for one in states.of(given))
