"""Linear layers with weights that are laid out once: the same numbers, and never those of an old weight."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from preflmr.model import packed  # noqa: E402
from preflmr.model.packed import FEWEST_ROWS, PackedLinear  # noqa: E402

SUPPORTED = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@pytest.fixture
def made(monkeypatch):
    """The shapes of the weights that are laid out."""
    shapes, kind = [], packed._packed
    monkeypatch.setattr(
        packed, "_packed", lambda weight, rows: shapes.append(tuple(weight.shape)) or kind(weight, rows)
    )
    return shapes


def both(layer, given, mode, dtype=torch.bfloat16):
    """What the layer gives without the mode and with it."""
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        plain = layer(given)
        with mode:
            return plain, layer(given)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(FEWEST_ROWS, 64), (3, 97, 64), (2, 5, 40, 64)])
def test_products_are_the_same(made, bias, shape):
    torch.manual_seed(0)
    layer, mode = nn.Linear(64, 48, bias=bias), PackedLinear()
    for given in (torch.randn(shape), torch.randn(shape).bfloat16(), torch.randn(*shape[:-1], 128)[..., ::2]):
        plain, found = both(layer, given, mode)
        assert found.dtype == plain.dtype and found.shape == plain.shape
        torch.testing.assert_close(found, plain, rtol=2**-7, atol=1e-2)
    assert made == [(48, 64)] * SUPPORTED


def test_a_weight_that_changed_is_laid_out_again(made):
    torch.manual_seed(0)
    layer, mode, given = nn.Linear(64, 48), PackedLinear(), torch.randn(FEWEST_ROWS, 64)
    before, _ = both(layer, given, mode)
    with torch.no_grad():
        layer.weight.mul_(2.0)
    in_place = both(layer, given, mode)
    layer.weight.data = torch.randn(48, 64)
    swapped = both(layer, given, mode)
    layer.weight = nn.Parameter(torch.randn(48, 64))
    replaced = both(layer, given, mode)
    for plain, found in (in_place, swapped, replaced):
        torch.testing.assert_close(found, plain, rtol=2**-7, atol=1e-2)
        assert not torch.allclose(found, before, atol=0.1)
    assert len(made) == 4 * SUPPORTED


def test_what_else_there_is_is_left_alone(made):
    torch.manual_seed(0)
    layer, mode, given = nn.Linear(64, 48), PackedLinear(), torch.randn(FEWEST_ROWS, 64)
    for some, dtype in ((given, None), (given[1:], torch.bfloat16), (given, torch.float16)):
        plain, found = both(layer, some, mode, dtype)
        assert torch.equal(plain, found)
    with torch.autocast("cpu", torch.bfloat16), mode:
        layer(given).sum().backward()
    assert layer.weight.grad is not None and layer.bias.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), mode:
        functional.linear(given, layer.weight * 2)  # no parameter: nobody would know when it changes
    with torch.no_grad(), mode, pytest.raises(RuntimeError, match="dtype"):
        layer.bfloat16()(given)
    assert made == []


def test_a_model_of_bfloat16_needs_no_autocast(made):
    torch.manual_seed(0)
    layer, mode, given = nn.Linear(64, 48).bfloat16(), PackedLinear(), torch.randn(FEWEST_ROWS, 64).bfloat16()
    plain, found = both(layer, given, mode, None)
    torch.testing.assert_close(found, plain, rtol=2**-7, atol=1e-2)
    assert len(made) == SUPPORTED


def test_a_weight_made_in_inference_mode_is_left_alone(made):
    with torch.inference_mode():
        plain, found = both(nn.Linear(64, 48), torch.randn(FEWEST_ROWS, 64), PackedLinear())
        assert torch.equal(plain, found) and made == []


def test_weights_go_with_their_model(made):
    mode = PackedLinear()
    both(nn.Linear(64, 48), torch.randn(FEWEST_ROWS, 64), mode)
    assert len(made) == SUPPORTED and len(mode._packed) == 0


def test_without_onednn_nothing_is_done(made, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain, found = both(nn.Linear(64, 48), torch.randn(FEWEST_ROWS, 64), PackedLinear())
    assert torch.equal(plain, found) and made == []
