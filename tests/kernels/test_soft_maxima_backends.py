"""The smooth maximum and its gradients on every backend of tensors, against float64 and torch's own gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lateint_kernels import RaggedTensor  # noqa: E402
from lateint_kernels.scores import smooth_maxsim  # noqa: E402

QUERIES, DOCUMENTS = [1, 15, 17, 32], [1, 2, 9, 33, 65]


@pytest.fixture
def rng():
    return np.random.default_rng(11)


class Case:
    """Ragged queries and documents, some of whose tokens are absent and hold NaN."""

    def __init__(self, rng, device, dtype, dim, kind):
        self.normalize = kind in ("normalized", "all")
        self.temperature = 0.1 if self.normalize else 2.0
        self.sides, self.masks = [], [None, None]
        for lengths in (QUERIES, DOCUMENTS):
            rows = torch.from_numpy(rng.standard_normal((sum(lengths), dim)).astype(np.float32))
            self.sides.append(rows.to(device, dtype))
        if kind in ("masked", "all"):
            for i, lengths in enumerate((QUERIES, DOCUMENTS)):
                mask = torch.from_numpy(rng.random(sum(lengths)) < 0.7)
                mask[torch.tensor(lengths).cumsum(0) - 1] = True
                self.masks[i] = mask.to(device)
                self.sides[i][~self.masks[i]] = torch.nan
        self.given = torch.from_numpy(rng.standard_normal((len(QUERIES), len(DOCUMENTS)))).to(device)

    def run(self, backend, dtype):
        """Scores and both gradients, by a backend in a dtype."""
        leaves = [side.to(dtype).requires_grad_() for side in self.sides]
        sides = [RaggedTensor.from_lengths(x, n) for x, n in zip(leaves, (QUERIES, DOCUMENTS), strict=True)]
        found = smooth_maxsim(
            *sides,
            self.temperature,
            query_mask=self.masks[0],
            document_mask=self.masks[1],
            normalize=self.normalize,
            backend=backend,
        )
        return [found.detach(), *torch.autograd.grad((found * self.given.to(found.dtype)).sum(), leaves)]


def close(found, exact, tolerance):
    assert (found.double() - exact).abs().max() <= tolerance * max(1, exact.abs().max())


KINDS = [(40, "all"), (130, "masked"), (24, "normalized")]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize(
    ("components", "masking", "kept"),
    [
        pytest.param(*kind, dtype, marks=() if i == j else pytest.mark.long)
        for i, kind in enumerate(KINDS)
        for j, dtype in enumerate(DTYPES)
    ],
)
def test_scores_and_gradients(backend, rng, device, kept, components, masking):
    case = Case(rng, device, kept, components, masking)
    found, exact = case.run(backend, kept), case.run("torch", torch.float64)
    close(found[0], exact[0], 3e-6)
    tolerance = {torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[kept]
    for mine, expected in zip(found[1:], exact[1:], strict=True):
        close(mine, expected, tolerance)


def test_documents_of_one_length(backend, rng, device):
    leaves = [torch.from_numpy(rng.standard_normal((3, n, 24)).astype(np.float32)).to(device) for n in (5, 9)]

    def run(name, dtype):
        sides = [leaf.to(dtype).requires_grad_() for leaf in leaves]
        found = smooth_maxsim(*sides, 2.0, backend=name)
        return [found.detach(), *torch.autograd.grad(found.square().sum(), sides)]

    for mine, exact in zip(run(backend, torch.float32), run("torch", torch.float64), strict=True):
        close(mine, exact, 2e-5)


def test_float16_keeps_small_gradients(backend, rng, device):
    """Those of a document far below those of another, and far below the least number of float16."""
    case = Case(rng, device, torch.float16, 40, "plain")
    case.given[:, :-1] *= 1e-4
    case.sides[0] /= 64
    *_, mine = case.run(backend, torch.float16)
    *_, expected = case.run("torch", torch.float64)
    few = sum(DOCUMENTS[:-1])
    assert (mine[:few].double() - expected[:few]).abs().max() <= 2e-2 * expected[:few].abs().max()


def test_infinity_and_nan(backend, rng, device):
    """They reach what they belong to, and nothing else."""
    case = Case(rng, device, torch.float32, 24, "plain")
    case.sides[0].abs_()
    case.sides[0][20, 3], case.sides[1][0, 0], case.sides[1][1:3, 1] = torch.nan, torch.inf, -torch.inf
    found, _, of_documents = case.run(backend, torch.float32)
    finite = [0, 1, 3]
    assert found[2].isnan().all()
    assert (found[finite, 0] == torch.inf).all() and (found[finite, 1] == -torch.inf).all()
    assert found[finite, 2:].isfinite().all()
    assert of_documents.isnan().any()


def test_products_too_large_for_exp(backend, rng, device):
    case = Case(rng, device, torch.float32, 24, "plain")
    case.sides = [side * 30 for side in case.sides]
    case.temperature = 0.01
    found, exact = case.run(backend, torch.float32), case.run("torch", torch.float64)
    close(found[0], exact[0], 1e-6)
    assert all(x.isfinite().all() for x in found)


def test_the_same_bits_every_time(backend, rng, device):
    case = Case(rng, device, torch.bfloat16, 40, "all")
    for left, right in zip(case.run(backend, torch.bfloat16), case.run(backend, torch.bfloat16), strict=True):
        assert torch.equal(left, right)
