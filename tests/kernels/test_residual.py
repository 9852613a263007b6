import numpy as np
import pytest

from lateint_kernels import _cpu, reference, to_bfloat16, to_float32
from lateint_kernels.codes.residual import NBITS, decode, depth_of, encode, levels, rotate, split_ids, to_bytes

CASTS = {"float32": lambda x: x, "float16": lambda x: x.astype(np.float16), "bfloat16": to_bfloat16}
WIDTHS = [8, 16, 40, 96, 104, 128, 136, 320, 1024, 2056, 4096]


def random_codes(rng, n, width, nbits, centroids):
    """Codes whose sums stay inside a byte, as encode makes them, with every scale that allows it."""
    code_bytes = width * nbits // 8
    scales = np.zeros(n, np.uint8) if nbits == 8 else rng.integers(1, 90, n).astype(np.uint8)
    rows = np.full((centroids, depth_of(width)), 128, np.uint8)
    rows[:, :width] = rng.integers(100, 156, (centroids, width))
    ids = rng.integers(0, centroids, n).astype(np.uint32)
    return rng.integers(0, 256, (n, code_bytes), dtype=np.uint8), scales, ids, rows


def decoded(codes, scales, ids, rows, nbits, width):
    """reference.decode, vectorised; test_decoding_is_a_loop holds the two together."""
    planes = [codes >> shift & 2**nbits - 1 for shift in range(0, 8, nbits)]
    codes = np.concatenate(planes, axis=1)
    if nbits == 8:
        return codes.astype(np.int64)
    return rows[ids, :width].astype(np.int64) + np.take_along_axis(levels(nbits)[scales], codes, axis=1)


def matrices(rng, blocks, size):
    """As long as rotations; the kernel does not ask for more."""
    return (rng.standard_normal((blocks, size, size)) / size**0.5).astype(np.float32)


# ------------------------------------------------------------------------- levels and decoding


@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_levels(nbits):
    table = levels(nbits)
    assert table.shape == (256, 2**nbits)
    for scale in range(256):
        assert table[scale].tolist() == [reference.level(nbits, scale, code) for code in range(2**nbits)]
    assert (table == -table[:, ::-1]).all()


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("width", [8, 40])
def test_decoding_is_a_loop(nbits, width):
    rng = np.random.default_rng(nbits)
    codes, scales, ids, rows = random_codes(rng, 5, width, nbits, 3)
    expected = reference.decode(codes, scales, ids, rows, nbits, width)
    np.testing.assert_array_equal(decoded(codes, scales, ids, rows, nbits, width), expected)
    np.testing.assert_array_equal(decode(codes, scales, ids, rows, nbits, width), expected)


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("width", WIDTHS)
def test_decode(isa, nbits, width):
    rng = np.random.default_rng(width)
    for n in (0, 1, 17, 40) if width <= 320 else (3,):
        codes, scales, ids, rows = random_codes(rng, n, width, nbits, 50)
        found = decode(codes, scales, ids, rows, nbits, width)
        np.testing.assert_array_equal(found, decoded(codes, scales, ids, rows, nbits, width))


@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_more_centroids_than_16_bits_count(isa, nbits):
    rng = np.random.default_rng(0)
    codes, scales, ids, rows = random_codes(rng, 200, 16, nbits, 70_000)
    ids[:3] = 0, 65_535, 65_536
    low, high = split_ids(ids, len(rows))
    assert low.tolist()[:3] == [0, 65_535, 0] and high.tolist()[:3] == [0, 0, 1]
    found = decode(codes, scales, ids, rows, nbits, 16)
    np.testing.assert_array_equal(found, decoded(codes, scales, ids, rows, nbits, 16))


def test_split_ids():
    ids = np.array([0, 65_535], np.uint32)
    assert split_ids(ids, 65_536)[1] is None
    low, high = split_ids(np.array([0xABCDEF], np.uint32), 1 << 24)
    assert (low.tolist(), high.tolist()) == ([0xCDEF], [0xAB])


# ------------------------------------------------------------------------- encoding


def gaussian(rng, n, width, centroids, spread=12.0):
    """Tokens around centroids, in steps: scaled [n, width], ids [n], rows [K, depth]."""
    rows = np.full((centroids, depth_of(width)), 128, np.uint8)
    rows[:, :width] = rng.integers(90, 166, (centroids, width))
    ids = rng.integers(0, centroids, n).astype(np.uint32)
    noise = rng.standard_normal((n, width)) * spread * rng.uniform(0.02, 1, (n, 1))
    return (rows[ids, :width].astype(np.float64) - 128 + noise).astype(np.float32), ids, rows


@pytest.mark.parametrize("nbits", NBITS)
@pytest.mark.parametrize("width", WIDTHS)
def test_encode_has_the_same_bits_everywhere(isa, nbits, width):
    rng = np.random.default_rng(width)
    n = 600 if width <= 128 and isa != "scalar" else 7
    scaled, ids, rows = gaussian(rng, n, width, 20)
    before = _cpu.active_isa()
    _cpu.set_active_isa("scalar")
    expected = encode(scaled, ids, rows, nbits, threads=1)
    _cpu.set_active_isa(before)
    assert expected[0].shape == (n, width * nbits // 8) and expected[1].shape == (n,)
    for threads in (1, 2, 3):
        codes, scales = encode(scaled, ids, rows, nbits, threads=threads)
        np.testing.assert_array_equal(codes, expected[0])
        np.testing.assert_array_equal(scales, expected[1])


@pytest.mark.parametrize(("nbits", "excess"), [(1, 0.01), (2, 0.03), (4, 0.25)])
@pytest.mark.parametrize("width", [96, 128, 320])
def test_encode_is_close_to_least_squares(nbits, excess, width):
    """No scale, with the nearest codes, is much better than what encode chose; checked against all 255."""
    rng = np.random.default_rng(nbits)
    scaled, ids, rows = gaussian(rng, 60, width, 9)
    scaled += (
        rng.standard_normal(scaled.shape).astype(np.float32) * 12
    )  # no token so near that rounding of levels rules
    codes, scales = encode(scaled, ids, rows, nbits)
    target = np.clip(scaled.astype(np.float64) + 128, 0, 255)
    chosen = ((decode(codes, scales, ids, rows, nbits, width) - target) ** 2).sum()
    residual = target - rows[ids, :width]
    nearest = [np.abs(residual[:, :, None] - table).min(2) for table in levels(nbits).astype(np.float64)[1:]]
    best = np.min([(distance**2).sum(1) for distance in nearest], axis=0).sum()
    assert best <= chosen <= (1 + excess) * best


@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_encode_chooses_the_nearest_levels(nbits):
    """Given the scale, no other code of a component is nearer by more than the rounding of levels."""
    rng = np.random.default_rng(0)
    scaled, ids, rows = gaussian(rng, 100, 40, 9)
    codes, scales = encode(scaled, ids, rows, nbits)
    target = scaled.astype(np.float64) + 128 - rows[ids, :40]
    chosen = np.abs(decode(codes, scales, ids, rows, nbits, 40) - (target + rows[ids, :40]))
    nearest = np.abs(target[:, :, None] - levels(nbits)[scales][:, None, :]).min(2)
    assert (chosen <= nearest + 1).all()


@pytest.mark.parametrize("nbits", [2, 4, 8])
def test_more_bits_are_closer(nbits):
    rng = np.random.default_rng(0)
    scaled, ids, rows = gaussian(rng, 200, 128, 9)

    def error(bits):
        codes, scales = encode(scaled, ids, rows, bits)
        return ((decode(codes, scales, ids, rows, bits, 128) - (scaled.astype(np.float64) + 128)) ** 2).sum()

    assert error(nbits) < 0.5 * error(nbits // 2)


@pytest.mark.parametrize("nbits", [1, 2, 4])
@pytest.mark.parametrize("edge", [0, 3, 252, 255])
def test_sums_do_not_wrap(isa, nbits, edge):
    """Centroids and tokens at the end of the byte, with residuals that point outwards and inwards."""
    rng = np.random.default_rng(edge)
    rows = np.full((1, 64), edge, np.uint8)
    scaled = (edge - 128 + rng.standard_normal((300, 40)) * 40).astype(np.float32)
    ids = np.zeros(300, np.uint32)
    codes, scales = encode(scaled, ids, rows, nbits)
    sums = decoded(codes, scales, ids, rows, nbits, 40)
    assert sums.min() >= 0 and sums.max() <= 255
    np.testing.assert_array_equal(decode(codes, scales, ids, rows, nbits, 40), sums)


@pytest.mark.parametrize("nbits", NBITS)
def test_a_token_at_its_centroid(isa, nbits):
    rows = np.full((1, 64), 130, np.uint8)
    codes, scales = encode(np.full((2, 16), 2.0, np.float32), np.zeros(2, np.uint32), rows, nbits)
    assert np.abs(decode(codes, scales, np.zeros(2, np.uint32), rows, nbits, 16).astype(int) - 130).max() <= 1


@pytest.mark.parametrize("nbits", NBITS)
def test_tokens_far_outside_the_bytes_are_cut(isa, nbits):
    rows = np.full((2, 64), 128, np.uint8)
    rows[1, :40] = 255
    scaled = np.stack([np.full(40, 1e4), np.full(40, -1e4), np.full(40, 1e30)]).astype(np.float32)
    ids = np.array([1, 0, 1], np.uint32)
    codes, scales = encode(scaled, ids, rows, nbits)
    found = decode(codes, scales, ids, rows, nbits, 40)
    assert (found[[0, 2]] >= 255 - 8).all() and (found[1] < 128).all()


@pytest.mark.parametrize("width", [1, 13, 64, 65, 150])
def test_to_bytes(isa, width):
    values = np.array([-1e9, -129, -128.4, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 126.6, 127.5, 300, 3e9], np.float32)
    values = np.resize(values, width)
    expected = np.clip(np.round(values.astype(np.float64)) + 128, 0, 255).astype(np.uint8)
    rows = to_bytes(np.tile(values, (3, 1)))
    assert rows.shape == (3, depth_of(width))
    assert (rows[:, :width] == expected).all() and (rows[:, width:] == 128).all()


# ------------------------------------------------------------------------- rotation


@pytest.mark.parametrize("cast", CASTS)
def test_rotation_is_a_loop(isa, cast):
    rng = np.random.default_rng(0)
    tokens = CASTS[cast](rng.standard_normal((5, 13)).astype(np.float32))
    mean, blocks = rng.standard_normal(13).astype(np.float32), matrices(rng, 2, 8)
    permutation = rng.permutation(16).astype(np.int32)
    exact = reference.rotate(tokens, mean, blocks, permutation, 0.25)
    np.testing.assert_allclose(rotate(tokens, mean, blocks, permutation, 0.25), exact, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 7, 8, 40, 100, 128, 129, 320, 1024, 2056, 4096])
def test_rotate(isa, dim):
    rng = np.random.default_rng(dim)
    width = -(-dim // 8) * 8
    block = max(size for size in range(1, 257 if width > 1024 else width + 1) if width % size == 0)
    blocks = matrices(rng, width // block, block)
    permutation = (rng.permutation(width) if block < width else np.arange(width)).astype(np.int32)
    mean = rng.standard_normal(dim).astype(np.float32) * 0.1
    tokens = rng.standard_normal((9 if isa != "scalar" else 3, dim)).astype(np.float32)
    expected = np.zeros((len(tokens), width))
    expected[:, permutation < dim] = ((tokens.astype(np.float64) - mean) / 0.5)[:, permutation[permutation < dim]]
    parts = [expected[:, b * block : (b + 1) * block] @ matrix for b, matrix in enumerate(blocks.astype(np.float64))]
    found = rotate(tokens, mean, blocks, permutation, 0.5)
    np.testing.assert_allclose(found, np.concatenate(parts, axis=1), atol=2e-5 * dim**0.5)
    before = _cpu.active_isa()
    _cpu.set_active_isa("scalar")
    same = rotate(tokens, mean, blocks, permutation, 0.5, threads=1)
    _cpu.set_active_isa(before)
    np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("number", [-1, 16])
def test_rotate_refuses_components_that_are_not_there(number):
    arrays = np.ones((2, 13), np.float32), np.zeros(13, np.float32), np.zeros((2, 8, 8), np.float32)
    permutation = np.r_[np.arange(15), number].astype(np.int32)
    with pytest.raises(ValueError, match=f"permutation must be numbers from 0 to 15, got {number}"):
        rotate(*arrays, permutation, 0.5)


def test_rotate_refuses_tokens_that_are_wider_than_the_rotation():
    arrays = np.ones((2, 17), np.float32), np.zeros(17, np.float32), np.zeros((2, 8, 8), np.float32)
    with pytest.raises(ValueError, match="mean must have at most 16 numbers, got 17"):
        rotate(*arrays, np.arange(16, dtype=np.int32), 0.5)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 255, 256, 257, 515])
def test_rotate_many(isa, n):
    """A token's result knows nothing of its neighbours and of threads."""
    rng = np.random.default_rng(n)
    blocks, permutation = matrices(rng, 1, 24), np.arange(24, dtype=np.int32)
    mean, tokens = np.zeros(24, np.float32), rng.standard_normal((n, 24)).astype(np.float32)
    alone = [rotate(token[None], mean, blocks, permutation, 1.0)[0] for token in tokens]
    for threads in (1, 2, 3):
        found = rotate(tokens, mean, blocks, permutation, 1.0, threads=threads)
        np.testing.assert_array_equal(found, np.array(alone, np.float32).reshape(n, 24))


@pytest.mark.parametrize("cast", CASTS)
def test_rotate_takes_every_float(isa, cast):
    rng = np.random.default_rng(0)
    tokens = CASTS[cast](rng.standard_normal((10, 40)).astype(np.float32))
    blocks, permutation = matrices(rng, 1, 40), np.arange(40, dtype=np.int32)
    mean = np.zeros(40, np.float32)
    np.testing.assert_array_equal(
        rotate(tokens, mean, blocks, permutation, 1.0), rotate(to_float32(tokens), mean, blocks, permutation, 1.0)
    )
