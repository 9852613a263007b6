"""The compiled smooth maximum and XTR's search on every instruction set, against float64; NumPy only."""

import numpy as np
import pytest

from lateint_kernels import _cpu, to_bfloat16
from lateint_kernels.arrays import to_float32

pytestmark = pytest.mark.usefixtures("isa")
DTYPES = ["float32", "float16", "bfloat16"]
# Lengths beside those of tiles, panels and chunks; the documents together are more than a block of XTR's products.
QUERIES, DOCUMENTS = [1, 15, 17, 32, 70], [1, 2, 9, 127, 128, 129, 300]


class Tokens:
    """Queries and documents, and the problem that the kernels see of them."""

    def __init__(self, rng, queries, documents, dim, dtype="float32", *, masked=False, normalized=False, scale=1.0):
        self.dtype, self.dim = dtype, dim
        self.offsets = [np.cumsum([0, *lengths]) for lengths in (queries, documents)]
        rows = [scale * rng.standard_normal((o[-1], dim)).astype(np.float32) for o in self.offsets]
        self.given = [to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype) for x in rows]
        self.weights = self.mask = self.norms = None
        if masked:
            self.weights = (rng.random(len(rows[0])) < 0.7).astype(np.float32)
            self.mask = rng.random(len(rows[1])) < 0.7
            self.mask[self.offsets[1][:-1]] = True
        if normalized:
            self.norms = [(1 / np.linalg.norm(x, axis=1)).astype(np.float32) for x in self.numbers]

    @property
    def numbers(self):
        return [to_float32(x).astype(np.float64) for x in self.given]

    @property
    def shape(self):
        return len(self.given[0]), len(self.offsets[1]) - 1

    def problem(self):
        def address(x):
            return 0 if x is None else x.ctypes.data

        left, right = self.norms or (None, None)
        return _cpu.TrainProblem(
            dtype=DTYPES.index(self.dtype),
            dim=self.dim,
            query_count=len(self.offsets[0]) - 1,
            document_count=len(self.offsets[1]) - 1,
            max_query_length=int(np.diff(self.offsets[0]).max()),
            pairs=0,
            queries=address(self.given[0]),
            query_offsets=address(self.offsets[0]),
            documents=address(self.given[1]),
            document_offsets=address(self.offsets[1]),
            query_weights=address(self.weights),
            query_inverse_norms=address(left),
            document_inverse_norms=address(right),
            document_scales=0,
            document_mask=address(self.mask),
            query_index=0,
            document_index=0,
        )

    def similarities(self):
        """``[TQ, TD]`` float64, -inf where a document token is absent."""
        left, right = self.numbers
        if self.norms:
            left, right = (x * norm[:, None] for x, norm in zip((left, right), self.norms, strict=True))
        with np.errstate(invalid="ignore"):
            found = left @ right.T
        if self.mask is not None:
            found[:, ~self.mask] = -np.inf
        return found

    def documents(self):
        return zip(self.offsets[1][:-1], self.offsets[1][1:], strict=True)


def soft_maxima(tokens, temperature):
    z = tokens.similarities() / temperature
    with np.errstate(invalid="ignore"):
        found = np.stack([np.logaddexp.reduce(z[:, a:b], axis=1) for a, b in tokens.documents()], 1) * temperature
    return found if tokens.weights is None else np.where(tokens.weights[:, None] != 0, found, 0)


def gradients(tokens, temperature, given):
    """Of normalised tokens through to the tokens as they are."""
    z = tokens.similarities() / temperature
    shares = np.zeros_like(z)
    for j, (a, b) in enumerate(tokens.documents()):
        part = np.exp(z[:, a:b] - np.logaddexp.reduce(z[:, a:b], axis=1, keepdims=True))
        shares[:, a:b] = part * given[:, j, None]
    if tokens.weights is not None:
        shares[tokens.weights == 0] = 0
    left, right = tokens.numbers
    if not tokens.norms:
        return shares @ right, shares.T @ left
    units = [x * norm[:, None] for x, norm in zip((left, right), tokens.norms, strict=True)]
    both = (shares @ units[1], shares.T @ units[0])
    return tuple(
        norm[:, None] * (x - (x * unit).sum(1, keepdims=True) * unit)
        for x, unit, norm in zip(both, units, tokens.norms, strict=True)
    )


def smooth(tokens, temperature, threads=1):
    found = np.full(tokens.shape, np.nan, np.float32)
    tokens.problem().smooth_forward(temperature, found.ctypes.data, threads)
    return found


def smooth_gradients(tokens, temperature, found, given, threads=1):
    both = [np.full_like(x, 1) for x in tokens.given]
    addresses = [x.ctypes.data for x in both]
    tokens.problem().smooth_backward(temperature, found.ctypes.data, given.ctypes.data, *addresses, threads)
    return both


def retrieve(tokens, k, threads=1):
    best, least = np.full(tokens.shape, np.nan, np.float32), np.full(tokens.shape[0], np.nan, np.float32)
    where = np.full(tokens.shape[::-1], -7, np.int16)
    tokens.problem().retrieve(k, best.ctypes.data, where.ctypes.data, 2, least.ctypes.data, threads)
    return best, where.T, least


def retrieved(tokens, k):
    found = tokens.similarities()
    best = np.stack([found[:, a:b].max(1) for a, b in tokens.documents()], 1)
    present = found.shape[1] if tokens.mask is None else int(tokens.mask.sum())
    least = np.sort(found, axis=1)[:, -min(k, present)]
    if tokens.weights is not None:
        best[tokens.weights == 0], least[tokens.weights == 0] = 0, 0
    return best, least


def close(found, expected, tolerance):
    np.testing.assert_allclose(to_float32(found), expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("dim", "kind"), [(128, "plain"), (1, "plain"), (72, "masked"), (33, "normalized"), (40, "all")]
)
def test_smooth_maxima_and_gradients(rng, dtype, dim, kind):
    tokens = Tokens(
        rng, QUERIES, DOCUMENTS, dim, dtype, masked=kind in ("masked", "all"), normalized=kind in ("normalized", "all")
    )
    temperature = 0.1 if kind in ("normalized", "all") else 2.0
    found = smooth(tokens, temperature)
    close(found, soft_maxima(tokens, temperature), 2e-6)
    given = rng.standard_normal(tokens.shape).astype(np.float32)
    tolerance = {"float32": 2e-5, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    both = smooth_gradients(tokens, temperature, found, given)
    for mine, exact in zip(both, gradients(tokens, temperature, given), strict=True):
        close(mine, exact, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 60, 500, 696, 5000])
def test_xtr_finds_maxima_and_the_last_of_k(rng, dtype, k):
    tokens = Tokens(rng, QUERIES, DOCUMENTS, 40, dtype, masked=k in (2, 500), normalized=k == 60)
    best, where, least = retrieve(tokens, k)
    exact, last = retrieved(tokens, k)
    close(best, exact, 2e-6)
    close(least, last, 2e-6)
    found = tokens.similarities()
    there = np.flatnonzero(tokens.weights) if tokens.weights is not None else np.arange(len(found))
    for j, (a, b) in enumerate(tokens.documents()):
        close(found[there, a + where[there, j]], exact[there, j], 2e-6)
        assert (where[there, j] < b - a).all()


def test_more_tokens_than_a_block_of_products(rng):
    tokens = Tokens(rng, [3, 30], [5000, 4000, 3, 6000], 8)
    for k in (1, 40, 7000, 14000):
        best, _, least = retrieve(tokens, k)
        exact, last = retrieved(tokens, k)
        close(best, exact, 2e-6)
        close(least, last, 2e-6)


def test_ties_and_outliers(rng):
    """Of whole numbers, whose products are exact, with many equal; and beside one that is much larger."""
    tokens = Tokens(rng, [20], [100, 200], 4)
    for x in tokens.given:
        np.copyto(x, rng.integers(-1, 2, x.shape))
    for outlier in (False, True):
        tokens.given[1][77] = 1e6 if outlier else 1
        for k in (1, 7, 100, 299):
            best, where, least = retrieve(tokens, k)
            exact, last = retrieved(tokens, k)
            np.testing.assert_array_equal(best, exact)
            np.testing.assert_array_equal(least, last)
            found = tokens.similarities()
            first = [found[:, a:b].argmax(1) for a, b in tokens.documents()]
            np.testing.assert_array_equal(where, np.stack(first, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_similarities_negative(rng, dtype):
    tokens = Tokens(rng, [5, 18], [30, 1, 140], 16, dtype)
    tokens.given = [to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype) for x in _opposite(tokens)]
    close(smooth(tokens, 0.5), soft_maxima(tokens, 0.5), 2e-6)
    best, _, least = retrieve(tokens, 50)
    exact, last = retrieved(tokens, 50)
    assert (exact < 0).all()
    close(best, exact, 2e-6)
    close(least, last, 2e-6)


def _opposite(tokens):
    left, right = (np.abs(x).astype(np.float32) for x in tokens.numbers)
    return left, -right


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(rng, dtype):
    tokens = Tokens(rng, [70, 1, 100, 133], [300, 40, 1, 17] * 10, 72, dtype, masked=True, normalized=True)
    given = rng.standard_normal(tokens.shape).astype(np.float32)

    def everything(threads):
        found = smooth(tokens, 0.1, threads)
        return [found, *smooth_gradients(tokens, 0.1, found, given, threads), *retrieve(tokens, 50, threads)]

    first = everything(1)
    for threads in (2, 3, 16):
        assert all(np.array_equal(x, y) for x, y in zip(everything(threads), first, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite(rng, dtype):
    """NaN and infinity reach what they belong to, and nothing else."""
    tokens = Tokens(rng, [3, 20], [50, 50, 50, 50, 5], 16, dtype)
    rows = [x.astype(np.float32) for x in tokens.numbers]
    rows[0] = np.abs(rows[0])
    rows[0][7, 2], rows[1][3, 0], rows[1][60, 0], rows[1][150:200, 5] = np.nan, np.inf, -np.inf, -np.inf
    tokens.given = [to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype) for x in rows]
    found, (best, _, _) = smooth(tokens, 0.5), retrieve(tokens, 20)
    finite = np.arange(len(rows[0])) != 7
    for result in (found, best):
        assert np.isnan(result[7]).all()
        assert (result[finite, 0] == np.inf).all() and (result[finite, 3] == -np.inf).all()
    close(found[finite][:, [1, 2, 4]], soft_maxima(tokens, 0.5)[finite][:, [1, 2, 4]], 2e-6)
    close(best[finite][:, [1, 2, 4]], retrieved(tokens, 20)[0][finite][:, [1, 2, 4]], 2e-6)


def test_products_too_large_for_exp(rng):
    tokens = Tokens(rng, [4], [9, 200], 32, scale=30.0)
    found = smooth(tokens, 0.01)
    close(found, soft_maxima(tokens, 0.01), 1e-6)
    given = np.ones(tokens.shape, np.float32)
    both = smooth_gradients(tokens, 0.01, found, given)
    assert all(np.isfinite(x).all() for x in both)


def test_a_document_without_tokens(rng):
    tokens = Tokens(rng, [5, 20], [30, 10, 30], 16, masked=True)
    tokens.mask[30:40] = False
    present = tokens.weights != 0
    found, (best, _, _) = smooth(tokens, 0.5), retrieve(tokens, 10)
    for result in (found, best):
        assert (result[present, 1] == -np.inf).all() and (result[~present] == 0).all()
        assert np.isfinite(result[:, [0, 2]]).all()
    left, right = smooth_gradients(tokens, 0.5, found, np.ones(tokens.shape, np.float32))
    assert np.isfinite(left).all() and (left[~present] == 0).all() and (right[~tokens.mask] == 0).all()
