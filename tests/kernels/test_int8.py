import numpy as np
import pytest

from lateint_kernels import _cpu


def products(rows, vectors):
    """Sums [n, m], exact in float64."""
    return (rows.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.int64)


@pytest.mark.parametrize("depth", [64, 128, 192, 320, 1024, 4096])
def test_products(isa, depth):
    rng = np.random.default_rng(depth)
    for n in [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 70]:
        for m in [1, 15, 16, 17, 33, 48]:
            if depth > 128 and (n, m) not in {(1, 1), (17, 17), (33, 33), (70, 48)}:
                continue
            rows = rng.integers(0, 256, (n, depth), dtype=np.uint8)
            vectors = rng.integers(-128, 128, (m, depth), dtype=np.int8)
            found = _cpu.int8_products(rows, vectors, False)
            assert found.shape == (n, -(-m // 16) * 16)
            np.testing.assert_array_equal(found[:, :m], products(rows, vectors))
            assert not found[:, m:].any()


@pytest.mark.parametrize("depth", [64, 128, 320, 1024, 4096])
def test_maxima(isa, depth):
    rng = np.random.default_rng(depth)
    for n in [16, 32, 48, 64] if depth <= 128 else [16, 48]:
        for m in [1, 16, 17, 32, 33, 50]:
            rows = rng.integers(0, 256, (n, depth), dtype=np.uint8)
            vectors = rng.integers(-128, 128, (m, depth), dtype=np.int8)
            found = _cpu.int8_products(rows, vectors, True)
            np.testing.assert_array_equal(found[0, :m], products(rows, vectors).max(0))


def test_maxima_below_zero(isa):
    """A lane, a row or a register of padding would win with its zero."""
    rng = np.random.default_rng(0)
    rows = rng.integers(200, 256, (48, 128), dtype=np.uint8)
    vectors = rng.integers(-128, -100, (17, 128), dtype=np.int8)
    found = _cpu.int8_products(rows, vectors, True)[0, :17]
    assert (found < 0).all()
    np.testing.assert_array_equal(found, products(rows, vectors).max(0))


def test_extremes(isa):
    """The largest sums there can be; pairs of products overflow 16 bits."""
    high, low = np.full((32, 4096), 255, np.uint8), np.zeros((32, 4096), np.uint8)
    for rows in (high, low):
        for value in (-128, 127):
            vectors = np.full((17, 4096), value, np.int8)
            expected = int(rows[0, 0]) * value * 4096
            for maximum in (False, True):
                assert np.unique(_cpu.int8_products(rows, vectors, maximum)[:, :17]).tolist() == [expected]
