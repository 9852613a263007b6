import numpy as np
import pytest

from lateint.indexing.codec import FEW, LARGEST_BLOCK, ODD, REACH, train_rotation
from lateint_kernels import reference, to_bfloat16


def pilot(n, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32) + np.float32(0.5)


@pytest.mark.parametrize("dim", [1, 7, 8, 12, 100, 128, 513, 520, 700])
def test_rotation(dim):
    rotation = train_rotation(pilot(200, dim), seed=0, threads=0)
    width, block = rotation.width, rotation.blocks.shape[1]
    assert width == -(-dim // 8) * 8 and width % block == 0 and block <= LARGEST_BLOCK
    assert rotation.blocks.shape == (width // block, block, block)
    for matrix in rotation.blocks.astype(np.float64):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(block), atol=1e-5)
    assert sorted(rotation.permutation.tolist()) == list(range(width))
    if block == width:
        assert rotation.permutation.tolist() == list(range(width))
    assert rotation.step == float(np.float32(rotation.step))


@pytest.mark.parametrize("dim", [128, 200, 768])
def test_blocks_are_alike_however_spreads_are_ordered(dim):
    spreads = np.geomspace(1, 1e-3, dim)
    for order in (np.arange(dim), np.random.default_rng(1).permutation(dim)):
        tokens = (pilot(4000, dim) - np.float32(0.5)) * spreads[order].astype(np.float32)
        rotation = train_rotation(tokens, seed=0, threads=0)
        turned = rotation.apply(tokens, step=1.0).reshape(len(tokens), len(rotation.blocks), -1)
        assert turned.shape[1] > 1
        energy = (turned.astype(np.float64) ** 2).sum((0, 2))
        assert energy.max() < 1.2 * energy.min()


@pytest.mark.parametrize("dim", [1, 12, 128, 700])
def test_rotation_keeps_lengths_and_goes_back(dim):
    tokens = pilot(50, dim)
    rotation = train_rotation(tokens, seed=3, threads=0)
    turned = rotation.apply(tokens)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=1) * rotation.step, np.linalg.norm(tokens - rotation.mean, axis=1), rtol=1e-4
    )
    np.testing.assert_allclose(rotation.apply(tokens, step=1.0), turned * np.float32(rotation.step), atol=1e-5)
    exact = reference.rotate(tokens[:2], rotation.mean, rotation.blocks, rotation.permutation, rotation.step)
    np.testing.assert_allclose(turned[:2], exact, atol=1e-3)
    rows = np.clip(np.round(turned) + 128, 0, 255).astype(np.uint8)
    np.testing.assert_allclose(rotation.invert(rows), tokens, atol=rotation.step * dim**0.5)


def test_the_mean_and_the_step_are_those_of_the_pilot():
    tokens = pilot(5000, 16)
    rotation = train_rotation(tokens, seed=0, threads=0)
    np.testing.assert_allclose(rotation.mean, tokens.astype(np.float64).mean(0), rtol=1e-5)
    assert np.abs(rotation.apply(tokens)).max() == pytest.approx(127, rel=1e-5)
    half = train_rotation(to_bfloat16(tokens), seed=0, threads=0)
    assert half.step == pytest.approx(rotation.step, rel=0.01)


def test_the_seed_chooses_the_rotation():
    tokens = pilot(100, 700)
    first, same, other = (
        train_rotation(tokens, seed=seed, threads=threads) for seed, threads in ((0, 1), (0, 3), (1, 1))
    )
    np.testing.assert_array_equal(first.blocks, same.blocks)
    np.testing.assert_array_equal(first.permutation, same.permutation)
    assert first.step == same.step
    assert not np.array_equal(first.blocks, other.blocks)


def test_the_step_reaches_a_few_times_the_usual_size():
    tokens = pilot(1000, 32) - np.float32(0.5)
    usual = train_rotation(tokens, seed=0, threads=0)
    tokens[7] *= 1e6
    bounded = train_rotation(tokens, seed=0, threads=0)
    assert usual.step < bounded.step < 2 * REACH * usual.step


def test_where_norms_are_spread_the_step_reaches_all():
    """The longest tokens decide MaxSim: cut, they would score as shorter ones do."""
    for n, few, reaches in ((1000, FEW, False), (1000, FEW + 1, True), (6 * ODD, 6, False), (6 * ODD, 7, True)):
        spread = pilot(n, 32) - np.float32(0.5)
        spread[:few] *= np.float32(3 * REACH)
        most = np.abs(train_rotation(spread, seed=0, threads=0).apply(spread)).max()
        assert (most == pytest.approx(127, rel=1e-5)) == reaches


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_step_is_learned_from_distinct_tokens(dtype):
    """With nine of ten tokens the same, the others used to be cut."""
    tokens = (pilot(1000, 32) - np.float32(0.5)).astype(dtype)
    usual = train_rotation(tokens, seed=0, threads=0)
    tokens[100:] = tokens[0]
    same = train_rotation(tokens, seed=0, threads=0)
    assert np.abs(same.apply(tokens)).max() <= 128
    assert usual.step / 2 < same.step < 2 * usual.step


def test_equal_tokens_have_some_step():
    rotation = train_rotation(np.ones((10, 8), np.float32), seed=0, threads=0)
    np.testing.assert_allclose(rotation.apply(np.ones((1, 8), np.float32)), 0, atol=1e-6)
    assert rotation.step > 0


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_sizes_that_float32_cannot_multiply(scale):
    with pytest.raises(ValueError, match=r"doc_embs must hold numbers between 1e-18 and 1e\+10 in size, .* about \d"):
        train_rotation(pilot(10, 8) * np.float32(scale), seed=0, threads=0)


def test_equal_tokens_that_float32_cannot_multiply():
    """Their distances from the mean are small; the mean itself is not."""
    with pytest.raises(ValueError, match=r"the largest component is about 1e\+30"):
        train_rotation(np.full((10, 8), 1e30, np.float32), seed=0, threads=0)
