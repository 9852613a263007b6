"""Attention in training on a CPU: float32 inside where gradients come after it, and nothing else is touched."""

import pytest
import torch
from torch.nn import functional

from preflmr.training.attention import WideAttention


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
    with torch.autocast("cpu", torch.bfloat16), WideAttention():
        out, gradients = attended(query, key, value, mask, dtype)
    wide, _ = attended(query, key, value, None if mask is None else mask.float(), torch.float32)
    assert out.dtype == dtype and torch.equal(out, wide.to(dtype))
    assert all(one.dtype == dtype and one.isfinite().all() for one in gradients)


def test_what_has_no_gradients_or_is_float32_is_left_alone():
    torch.manual_seed(0)
    sides = [torch.randn(2, 3, 7, 16) for _ in range(3)]
    for given in (sides, [side.bfloat16() for side in sides]):
        with WideAttention():
            found = functional.scaled_dot_product_attention(*given)
        assert torch.equal(found, functional.scaled_dot_product_attention(*given))
    narrow = [side.bfloat16().requires_grad_() for side in sides]
    with WideAttention(), torch.no_grad():
        found = functional.scaled_dot_product_attention(*narrow)
    with torch.no_grad():
        assert torch.equal(found, functional.scaled_dot_product_attention(*narrow))
