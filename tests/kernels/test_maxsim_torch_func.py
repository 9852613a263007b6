"""Transforms of torch.func and forward-mode differentiation: right, or refused in a sentence, never silently zero."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.autograd import forward_ad  # noqa: E402

from lateint_kernels import RaggedTensor, maxsim, maxsim_pairs  # noqa: E402

# torch's own, when forward-mode differentiation is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

OPTIONS = {
    "plain": {},
    "normalized": {"normalize": True},
    "weighed": {"weights": True},
    "masked": {"mask": True},
    "all": {"normalize": True, "weights": True, "mask": True},
    "all, multiplied": {"normalize": True, "weights": True, "mask": True, "masking": "multiply"},
}


def plain(queries, documents):
    return torch.einsum("ash,bth->abst", queries, documents).amax(-1).sum(-1)


@pytest.fixture
def sides():
    rng = np.random.default_rng(3)
    shapes = ((3, 4, 8), (5, 6, 8))
    return tuple(torch.from_numpy(rng.standard_normal(shape)).float() for shape in shapes)


@pytest.fixture
def tangents(sides):
    return tuple(torch.flip(side, (0, 1)) + 0.5 for side in sides)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_forward_mode_by_finite_differences(sides, name, pairs):
    queries, documents = (side.double().requires_grad_() for side in sides)
    masking = OPTIONS[name].get("masking", "exclude")
    options = {"normalize": OPTIONS[name].get("normalize", False), "masking": masking}
    weights = None
    if "weights" in OPTIONS[name]:
        weights = torch.linspace(-1, 2, 12, dtype=torch.float64).reshape(3, 4)
        weights[1, 2] = 0  # an absent token, whose weight has no gradient
        weights.requires_grad_()
    if "mask" in OPTIONS[name]:
        options["document_mask"] = torch.arange(30).reshape(5, 6) % 4 != 0

    def run(queries, documents, weights=None):
        if pairs:
            return maxsim_pairs(queries, documents, [2, 0, 2, 1], [0, 4, 4, 3], query_weights=weights, **options)
        return maxsim(queries, documents, query_weights=weights, **options)

    if weights is not None:
        free = weights.detach() != 0
        whole = run
        run = lambda q, d, w: whole(q, d, w.where(free, 0))  # noqa: E731
    given = (queries, documents) if weights is None else (queries, documents, weights)
    assert torch.autograd.gradcheck(run, given, check_forward_ad=True, fast_mode=True)


def test_forward_mode_of_packed_and_masked_tokens(backend, sides, tangents, device):
    """On every backend, for the positions of the maxima are its own."""
    documents, changes = ([x.to(device) for x in (side[1][0, :2], *side[1][1:])] for side in (sides, tangents))
    queries, change = sides[0].to(device), tangents[0].to(device)
    with forward_ad.dual_level():
        packed = RaggedTensor.pack([forward_ad.make_dual(d, c) for d, c in zip(documents, changes, strict=True)])
        scores = maxsim(forward_ad.make_dual(queries, change), packed, backend=backend)
        found = forward_ad.unpack_dual(scores).tangent
        expected = []
        for d, c in zip(documents, changes, strict=True):
            dual = plain(forward_ad.make_dual(queries, change), forward_ad.make_dual(d, c)[None])
            expected.append(forward_ad.unpack_dual(dual).tangent)
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-4, atol=1e-4)


def test_a_document_without_tokens_does_not_change(sides, tangents):
    mask = torch.ones(5, 6)
    mask[2] = 0
    scores, change = torch.func.jvp(lambda *both: maxsim(*both, document_mask=mask, check=False), sides, tangents)
    assert scores[:, 2].isneginf().all() and (change[:, 2] == 0).all() and change.isfinite().all()


TRANSFORMS = {
    "grad": lambda f, q, d: torch.func.grad(lambda q: f(q, d).square().sum())(q),
    "vjp": lambda f, q, d: torch.func.vjp(f, q, d)[1](torch.ones(len(q), len(d))),
    "jacrev": lambda f, q, d: torch.func.jacrev(f, (0, 1))(q, d),
    "jacfwd": lambda f, q, d: torch.func.jacfwd(f, (0, 1))(q, d),
    "forward twice": lambda f, q, d: torch.func.jacfwd(torch.func.jacfwd(f, 0), 1)(q, d),
    "hessian": lambda f, q, d: torch.func.hessian(lambda q: f(q, d).square().sum())(q),
    "forward of gradients": lambda f, q, d: torch.func.jacfwd(torch.func.grad(lambda q, d: f(q, d).square().sum()), 1)(
        q, d
    ),
    "vmap": lambda f, q, d: torch.vmap(f, (0, None))(torch.stack([q, 2 * q]), d),
    "vmap of grad": lambda f, q, d: torch.vmap(torch.func.grad(lambda q, d: f(q[None], d).sum()), (0, None))(q, d),
    "vectorized": lambda f, q, d: torch.autograd.functional.jacobian(f, (q, d), vectorize=True),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(sides, name):
    found, expected = (TRANSFORMS[name](function, *sides) for function in (maxsim, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_jvp(sides, tangents):
    found, expected = (torch.func.jvp(function, sides, tangents) for function in (maxsim, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_gradients_of_gradients_are_refused(sides):
    queries, documents = sides
    gradient = torch.func.grad(lambda q: maxsim(q, documents).square().sum())
    with pytest.raises(RuntimeError, match="maxsim can be differentiated once only"):
        torch.func.jacrev(gradient)(queries)
