"""Attention and dropout in training on a CPU: torch's results, with other masks, and nothing else is touched."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.nn import functional  # noqa: E402

from preflmr.training import on_cpu  # noqa: E402
from preflmr.training.on_cpu import OnCpu  # noqa: E402


def attended(query, key, value, mask, dtype):
    sides = [side.to(dtype).detach().requires_grad_() for side in (query, key, value)]
    out = functional.scaled_dot_product_attention(*sides, attn_mask=mask)
    out.float().square().sum().backward()
    return out, [side.grad for side in sides]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_only_the_result_is_rounded(dtype, masked):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 16).to(dtype) for _ in range(3))
    mask = torch.randn(2, 1, 7, 7).to(dtype) if masked else None
    with torch.autocast("cpu", torch.bfloat16), OnCpu():
        out, gradients = attended(query, key, value, mask, dtype)
    wide, _ = attended(query, key, value, None if mask is None else mask.float(), torch.float32)
    assert out.dtype == dtype and torch.equal(out, wide.to(dtype))
    assert all(one.dtype == dtype and one.isfinite().all() for one in gradients)


def test_what_has_no_gradients_or_is_float32_is_left_alone():
    torch.manual_seed(0)
    sides = [torch.randn(2, 3, 7, 16) for _ in range(3)]
    for given in (sides, [side.bfloat16() for side in sides]):
        with OnCpu():
            found = functional.scaled_dot_product_attention(*given)
        assert torch.equal(found, functional.scaled_dot_product_attention(*given))
    narrow = [side.bfloat16().requires_grad_() for side in sides]
    with OnCpu(), torch.no_grad():
        found = functional.scaled_dot_product_attention(*narrow)
    with torch.no_grad():
        assert torch.equal(found, functional.scaled_dot_product_attention(*narrow))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    given = torch.full((1000, 401), 3.0, requires_grad=True)  # not four times anything
    with OnCpu():
        found = functional.dropout(given, p)
    kept = found != 0
    assert kept.float().mean().item() == pytest.approx(1 - p, abs=4e-3)
    assert torch.allclose(found.detach()[kept], torch.tensor(3 / (1 - p)), rtol=1e-3)
    assert found.mean().item() == pytest.approx(3, rel=0.02)
    assert kept.float().mean(0).std() < 0.03 and kept.float().mean(1).std() < 0.04  # no place is special
    found.sum().backward()
    assert torch.equal(given.grad != 0, kept)


def test_dropout_follows_the_generator():
    given = torch.ones(7, 5)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with OnCpu():
            found.append(torch.nn.Dropout(0.5)(given))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_nothing_is_dropped_where_nothing_is_to_be():
    given = torch.randn(5, 7)
    with OnCpu():
        for module in (torch.nn.Dropout(0.0), torch.nn.Dropout(0.3).eval()):
            assert torch.equal(module(given), given)
        assert not torch.nn.Dropout(1.0)(given).any()


def mask_of(kind):
    if kind == "none":
        return None
    added = torch.randn(2, 1, 7, 7)
    if kind == "added":
        return added
    return (added > 0.5) | torch.eye(7, dtype=torch.bool)  # every row has one at least


@pytest.mark.parametrize("kind", ["none", "added", "chosen"])
def test_attention_with_dropout(kind, monkeypatch):
    """Where every weight is kept it is that without; and gradients go through what is kept."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 16) for _ in range(3))
    mask = mask_of(kind)
    expected = functional.scaled_dot_product_attention(query, key, value, mask)
    assert torch.allclose(on_cpu._with_dropout(query, key, value, mask, 1e-9, None), expected, atol=2e-4)
    sides = [side.bfloat16().requires_grad_() for side in (query, key, value)]
    narrow = mask.bfloat16() if kind == "added" else mask
    drawn, dropout = [], on_cpu._dropout
    monkeypatch.setattr(on_cpu, "_dropout", lambda *given: drawn.append(given) or dropout(*given))
    with OnCpu():
        out = functional.scaled_dot_product_attention(*sides, attn_mask=narrow, dropout_p=0.5)
        again = functional.scaled_dot_product_attention(*sides, attn_mask=narrow, dropout_p=0.5)
    assert len(drawn) == 2  # our masks
    assert out.dtype == torch.bfloat16 and not torch.equal(out, again)
    out.float().square().sum().backward()
    assert all(side.grad.isfinite().all() and side.grad.any() for side in sides)


@pytest.mark.parametrize("kind", ["added", "chosen"])
def test_a_row_that_attends_to_nothing_is_zero(kind):
    torch.manual_seed(0)
    sides = [torch.randn(2, 3, 7, 16).bfloat16().requires_grad_() for _ in range(3)]
    chosen = torch.eye(7, dtype=torch.bool).repeat(2, 1, 1, 1)
    chosen[1, :, 3] = False
    mask = chosen if kind == "chosen" else torch.where(chosen, 0.0, -torch.inf).bfloat16()
    with OnCpu():
        out = functional.scaled_dot_product_attention(*sides, attn_mask=mask, dropout_p=0.5)
    assert out.isfinite().all() and not out[1, :, 3].any() and out[1, :, 2].any()
