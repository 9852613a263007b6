import numpy as np
import pytest

from lateint_kernels import BFLOAT16, Ragged, check_finite, first_zero_row, to_bfloat16
from lateint_kernels.ragged import bad_rows

MATRICES = [np.full((length, 4), length, np.float32) for length in (3, 1, 2)]


def test_pack():
    ragged = Ragged.pack(MATRICES)
    assert (len(ragged), ragged.dim, ragged.dtype) == (3, 4, np.float32)
    assert ragged.lengths.tolist() == [3, 1, 2]
    assert ragged.offsets.tolist() == [0, 3, 4, 6]
    for i, matrix in enumerate(ragged):
        assert np.array_equal(matrix, MATRICES[i])
    assert np.array_equal(ragged[-1], MATRICES[2])
    for index in (3, -4):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 3 matrices"):
            ragged[index]


def test_all_constructors_agree():
    tokens = np.concatenate(MATRICES)
    padded = np.full((3, 3, 4), np.nan, np.float32)
    for i, matrix in enumerate(MATRICES):
        padded[i, : len(matrix)] = matrix
    for other in (
        Ragged(tokens, np.array([0, 3, 4, 6])),
        Ragged.from_offsets(tokens, [0, 3, 4, 6]),
        Ragged.from_lengths(tokens, np.array([3, 1, 2], np.int32)),
        Ragged.from_padded(padded, [3, 1, 2]),
    ):
        assert np.array_equal(other.tokens, tokens)
        assert other.offsets.tolist() == [0, 3, 4, 6]
        assert other.offsets.dtype == np.int64


def test_padded_without_lengths_is_not_copied():
    padded = np.zeros((2, 3, 4), np.float16)
    ragged = Ragged.from_padded(padded)
    assert ragged.offsets.tolist() == [0, 3, 6]
    assert np.shares_memory(ragged.tokens, padded)


def test_memory_maps_stay(tmp_path):
    np.save(tmp_path / "x.npy", to_bfloat16(np.concatenate(MATRICES)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    ragged = Ragged.from_lengths(mapped, [6])
    assert np.shares_memory(ragged.tokens, mapped)
    assert ragged.dtype == BFLOAT16


def test_torch_lengths():
    torch = pytest.importorskip("torch")
    assert Ragged.from_lengths(torch.ones(3, 2), torch.tensor([1, 2])).lengths.tolist() == [1, 2]


def test_empty_matrices():
    tokens = np.ones((3, 4), np.float32)
    assert Ragged.from_lengths(tokens, [0, 3, 0], allow_empty=True).has_empty
    assert not Ragged.from_lengths(tokens, [1, 2], allow_empty=True).has_empty
    assert len(Ragged.from_lengths(tokens[:0], [])) == 0
    with pytest.raises(ValueError, match=r"document 1 is empty: offsets 1\.\.1"):
        Ragged.from_lengths(tokens, [1, 0, 2])
    with pytest.raises(ValueError, match="document 1 is empty"):
        Ragged.pack([tokens, tokens[:0]])
    assert len(Ragged.pack([tokens, tokens[:0]], allow_empty=True)) == 2


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([], "offsets must start at 0, got none"),
        ([1, 3], "offsets must start at 0, got 1"),
        ([0, 2], "offsets must end at the number of tokens 3, got 2"),
        ([0, 5, 3], r"document 1 has a negative length: offsets 5\.\.3"),
    ],
)
def test_bad_offsets(offsets, message):
    with pytest.raises(ValueError, match=message):
        Ragged.from_offsets(np.ones((3, 4), np.float32), np.array(offsets, np.int64))


@pytest.mark.parametrize("lengths", [[1.0, 2.0], [[1, 2]], 3, ["1"]])
def test_lengths_must_be_integers(lengths):
    with pytest.raises(TypeError, match="lengths must be a list of integers, got"):
        Ragged.from_lengths(np.ones((3, 4), np.float32), lengths)


def test_negative_lengths():
    with pytest.raises(ValueError, match="lengths must not be negative, got -1 at 1"):
        Ragged.from_lengths(np.ones((3, 4), np.float32), [4, -1])


@pytest.mark.parametrize("lengths", [[1], [1, 4], [-1, 2]])
def test_padded_lengths_must_fit(lengths):
    with pytest.raises(ValueError, match="lengths must be 2 numbers from 0 to 3"):
        Ragged.from_padded(np.ones((2, 3, 4), np.float32), lengths)


def test_shapes():
    with pytest.raises(ValueError, match=r"tokens must be \[T, dim\], got \(3,\)"):
        Ragged.from_lengths(np.ones(3, np.float32), [3])
    with pytest.raises(ValueError, match=r"array must be \[n, L, dim\], got \(3, 4\)"):
        Ragged.from_padded(np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"document 1 must be \[L, dim\], got \(4,\)"):
        Ragged.pack([np.ones((3, 4), np.float32), np.ones(4, np.float32)])
    with pytest.raises(ValueError, match="document 1 has dim 5, document 0 has 4"):
        Ragged.pack([np.ones((3, 4), np.float32), np.ones((3, 5), np.float32)])
    with pytest.raises(TypeError, match="query 1 has float16, query 0 has float32"):
        Ragged.pack([np.ones((3, 4), np.float32), np.ones((3, 4), np.float16)], name="query")
    with pytest.raises(ValueError, match="at least one document to pack"):
        Ragged.pack([])


def holding(dtype, rows, dim, value, places):
    tokens = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
    for row, column in places:
        tokens[row, column] = value
    return to_bfloat16(tokens) if dtype == BFLOAT16 else tokens.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("threads", [1, 3])
def test_check_finite(dtype, value, threads):
    check_finite(holding(dtype, 5000, 17, value, []), "tokens", threads=threads)
    bad = holding(dtype, 5000, 17, value, [(4321, 16), (4999, 0), (4500, 3)])
    with pytest.raises(ValueError, match="tokens must be finite, but row 4321 holds a NaN or an infinity"):
        check_finite(bad, "tokens", threads=threads)


def test_every_int8_is_finite():
    check_finite(np.full((2, 3), -128, np.int8), "tokens")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16, np.int8])
def test_first_zero_row(dtype):
    tokens = np.ones((5000, 5), np.float32)
    tokens[3000] = tokens[4000] = -0.0
    tokens[2000, :4] = 0
    make = to_bfloat16 if dtype == BFLOAT16 else lambda x: x.astype(dtype)
    assert first_zero_row(make(tokens), "tokens", threads=2) == 3000
    assert first_zero_row(make(tokens[:3000]), "tokens") is None


@pytest.mark.parametrize("nonfinite, zero", [(100, 4000), (4000, 100), (4999, None), (None, 4999)])
@pytest.mark.parametrize("threads", [1, 2])
def test_both_kinds_of_bad_rows_are_found_in_one_pass(nonfinite, zero, threads):
    tokens = np.ones((5000, 60), np.float32)
    if zero is not None:
        tokens[zero::900] = 0
    if nonfinite is not None:
        tokens[nonfinite::700, 59] = np.nan
    assert bad_rows(tokens, "tokens", threads=threads) == (nonfinite, zero)


def test_a_check_wants_a_matrix():
    with pytest.raises(ValueError, match=r"x must be \[T, dim\], got \(3,\)"):
        check_finite(np.ones(3, np.float32), "x")


OVERFLOWS = {
    "lengths": (
        {"lengths": [2**62] * 4 + [4]},
        "lengths must add up to the number of tokens 4, got 18446744073709551620",
    ),
    "lengths of 64 bits": (
        {"lengths": np.array([2**64 - 4, 8], np.uint64)},
        r"lengths must be below 2\^63, got 18446744073709551612 at 0",
    ),
    "offsets": (
        {"offsets": [0, 2**62, 2**63 - 1, -(2**63), 4]},
        r"document 2 has a negative length: offsets 9223372036854775807\.\.-9223372036854775808",
    ),
}


@pytest.mark.parametrize("name", OVERFLOWS)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_sums_that_leave_64_bits_are_refused(name, kind):
    given, message = OVERFLOWS[name]
    tokens, of = np.ones((4, 8), np.float32), Ragged
    if kind == "torch":
        torch = pytest.importorskip("torch")
        from lateint_kernels import RaggedTensor

        tokens, of = torch.ones(4, 8), RaggedTensor
    with pytest.raises(ValueError, match=message):
        of.from_lengths(tokens, **given) if "lengths" in given else of.from_offsets(tokens, **given)


def test_a_masked_length_is_refused():
    lengths = np.ma.array([1, 2, 7], mask=[False, False, True])
    with pytest.raises(TypeError, match="lengths must not be masked, got a masked array that masks 1 numbers"):
        Ragged.from_lengths(np.ones((3, 8), np.float32), lengths)
