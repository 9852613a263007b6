"""MaxSim of tensors: forward, and forward with backward, on each backend of this machine. Tokens are random.

pytest benchmarks/bench_train.py --benchmark-group-by=group
"""

import platform
import subprocess
from functools import lru_cache

import pytest

from benchmarks.shapes import TRAIN_SHAPES
from lateint_kernels import backends, explain, maxsim

torch = pytest.importorskip("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BACKENDS = [name for name in backends.PREFERENCE[DEVICE] if backends.why_not(name, "maxsim", DEVICE) is None]
DTYPES = ("float32", "float16", "bfloat16")


@lru_cache(maxsize=1)
def workload(name, dtype):
    """Queries, documents, and a gradient of their scores."""
    shape, generator = TRAIN_SHAPES[name], torch.Generator().manual_seed(0)

    def unit(length):
        numbers = torch.randn(shape.Nq, length, shape.dim, generator=generator)
        return torch.nn.functional.normalize(numbers, dim=2).to(DEVICE, getattr(torch, dtype)).requires_grad_()

    return unit(shape.Lq), unit(shape.Ld), torch.randn(shape.Nq, shape.Nq, generator=generator).to(DEVICE)


def exact(queries, documents):
    return torch.einsum("ash,bth->abst", queries.double(), documents.double()).max(-1).values.sum(-1)


def finished(function):
    """What it returns, once the device has computed it."""

    def run(*arguments, **options):
        found = function(*arguments, **options)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return found

    return run


def describe(benchmark, name, dtype, what):
    benchmark.group = f"{name} {dtype} {what}"
    git = ["git", "describe", "--always", "--dirty"]
    benchmark.extra_info.update(
        workload=name,
        dtype=dtype,
        device=torch.cuda.get_device_name() if DEVICE == "cuda" else platform.processor() or platform.machine(),
        backends=explain(),
        torch=torch.__version__,
        commit=subprocess.run(git, capture_output=True, text=True).stdout.strip(),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRAIN_SHAPES)
def bench_forward(benchmark, name, dtype, backend):
    queries, documents, _ = workload(name, dtype)
    with torch.no_grad():
        scores = benchmark(finished(maxsim), queries, documents, backend=backend)
        torch.testing.assert_close(scores[:2].double(), exact(queries[:2], documents), rtol=1e-4, atol=1e-3)
    describe(benchmark, name, dtype, "forward")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRAIN_SHAPES)
def bench_step(benchmark, name, dtype, backend):
    """Forward and backward."""
    queries, documents, grad_scores = workload(name, dtype)

    def step():
        return torch.autograd.grad(maxsim(queries, documents, backend=backend), (queries, documents), grad_scores)

    gradients = benchmark(finished(step))
    wanted = torch.autograd.grad(exact(queries, documents), (queries, documents), grad_scores.double())
    for found, expected in zip(gradients, wanted, strict=True):
        close = 2e-2 if dtype != "float32" else 1e-4
        assert (found.double() - expected.double()).abs().max() <= close * expected.abs().max()
    describe(benchmark, name, dtype, "forward and backward")
