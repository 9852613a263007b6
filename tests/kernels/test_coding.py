"""Documents as their codes give them back: the definition, gradients, layouts, and what an index of them scores."""

import doctest

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lateint  # noqa: E402
from lateint_kernels import RaggedTensor, coding, losses, maxsim, reference, scores  # noqa: E402
from lateint_kernels.codes.device.building import DeviceOperators  # noqa: E402
from lateint_kernels.coding import Coding  # noqa: E402

NBITS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((12, 24))
    x = centres[rng.integers(12, size=900)] + 0.4 * rng.standard_normal((900, 24))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def codecs(tokens):
    return {nbits: lateint.train_codec([tokens], nbits=nbits, ncentroids=16, seed=1, progress=False) for nbits in NBITS}


def defined(tokens, codec):
    arrays = [codec.arrays[name] for name in ("mean", "rotation", "permutation")]
    return reference.coded(tokens, *arrays, codec.rotation.step, codec.arrays["centroids"], codec.nbits)


@pytest.mark.parametrize("nbits", NBITS)
def test_the_definition(tokens, codecs, nbits):
    """A component between two levels may take the other one when float32 rounds otherwise, but few do."""
    some = tokens[:60]
    found = Coding(codecs[nbits], cells=0)(torch.from_numpy(some)).double().numpy()
    error = np.abs(found - defined(some, codecs[nbits])).max(1)
    assert (error < 1e-6).mean() > 0.95
    assert error.max() < 4 * np.abs(found - some).max() + 1e-6


@pytest.mark.parametrize("nbits", NBITS)
def test_an_index_gives_back_the_same(tokens, codecs, nbits):
    documents = [tokens[:300], tokens[300:310], tokens[310:311]]
    index = lateint.Index.build(documents, codec=codecs[nbits], progress=False)
    for position, document in enumerate(documents):
        found = Coding(codecs[nbits])(torch.from_numpy(document)).numpy()
        np.testing.assert_allclose(found, index.reconstruct(position), atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("nbits", NBITS)
def test_a_device_gives_the_same_codes(tokens, codecs, nbits, backend):
    try:
        operators = DeviceOperators("cpu", backend)
    except lateint.BackendError as reason:
        pytest.skip(str(reason))
    x = torch.from_numpy(tokens[:40])
    coder = coding._Coder(codecs[nbits], 3, x.device, operators)
    assert torch.equal(coder.coded(x), Coding(codecs[nbits])(x))


def test_gradients_pass_straight_through(tokens, codecs):
    """What the coded documents would get goes to the documents, the same bits."""
    queries = torch.from_numpy(tokens[:12]).reshape(3, 4, 24)
    documents = torch.from_numpy(tokens[12:72]).reshape(6, 10, 24).requires_grad_()
    code = Coding(codecs[2])
    fixed = code(documents).detach().requires_grad_()
    for score in (maxsim, lambda q, d: scores.smooth_maxsim(q, d, 0.1), lambda q, d: scores.xtr(q, d, 8)):
        through = losses.contrastive(score(queries, code(documents)), torch.arange(3))
        direct = losses.contrastive(score(queries, fixed), torch.arange(3))
        assert torch.equal(through, direct)
        assert torch.equal(*(torch.autograd.grad(x, y)[0] for x, y in ((through, documents), (direct, fixed))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_layouts_and_dtypes(tokens, codecs, dtype):
    code = Coding(codecs[4])
    x = torch.from_numpy(tokens[:24]).to(dtype)
    expected = code(x)
    assert expected.dtype == dtype and not torch.equal(expected, x)
    assert torch.equal(code(x.reshape(2, 3, 4, 24)), expected.reshape(2, 3, 4, 24))
    for one, other in zip(code([x[:5], x[5:]]), (expected[:5], expected[5:]), strict=True):
        torch.testing.assert_close(one, other)  # a product of fewer rows is summed in another order
    packed = code(RaggedTensor.pack([x[:5], x[5:]]))
    assert torch.equal(packed.tokens, expected) and packed.lengths.tolist() == [5, 19]
    assert code(x[:0]).shape == (0, 24)


def test_padding_stays_what_it_is(tokens, codecs):
    x = torch.from_numpy(tokens[:4]).clone()
    x[3] = 0
    x[1, 4], x[2] = float("nan"), float("inf")
    found = Coding(codecs[2])(x)
    torch.testing.assert_close(found[0], Coding(codecs[2])(x[:1])[0])
    assert found[1].isnan().sum() == 1 and found[2].isinf().all() and not found[3].any()


def test_coded_again_is_nearly_the_same(tokens, codecs):
    """Codes are near the tokens: nearer with more bits."""
    x = torch.from_numpy(tokens)
    errors = [float((Coding(codecs[nbits])(x) - x).norm(dim=1).mean()) for nbits in NBITS]
    assert errors == sorted(errors, reverse=True) and errors[1] < 0.2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: Coding("codec"), TypeError, "codec must be a lateint.Codec, got str"),
        (lambda c: Coding(c, cells=1.5), TypeError, "cells must be an integer, got float"),
        (lambda c: Coding(c)(np.zeros((2, 24))), TypeError, "documents must be tensors of float32.*, got ndarray"),
        (lambda c: Coding(c)(torch.zeros(2, 24, dtype=torch.int8)), TypeError, "got torch.int8"),
        (
            lambda c: Coding(c)(torch.zeros(2, 23)),
            ValueError,
            r"must be \[..., 24\] as the codec has it, got \[2, 23\]",
        ),
    ],
)
def test_bad_arguments(codecs, call, error, message):
    with pytest.raises(error, match=message):
        call(codecs[2])


def test_examples_of_the_definition():
    assert doctest.testmod(reference).failed == 0
