"""Training on the CPU: MaxSim of a batch, forward and forward with backward, next to what else there is.

python -m benchmarks.train --out train.json

Tokens are random unit vectors. All systems take turns, round after round, with the same tensors and number of threads,
and the best of a system's rounds counts. Before that, scores and gradients are compared with float64, and a rival
whose scores are wrong is not timed. Rivals that are
not installed are left out; NumKong and maxsim-cpu have no gradient. NumKong's packing of tokens, which a training step
cannot do beforehand, is timed with it; it uses one thread.

Memory is by how much a forward and backward step raises the peak of the process, without the gradients it returns.
"""

import argparse
import ctypes
import gc
import json
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import lateint_kernels
from benchmarks.rivals.measure import peak_rss
from benchmarks.shapes import TRAIN_SHAPES, TrainShape
from lateint_kernels import _cpu

Tensor = torch.Tensor


@dataclass(frozen=True)
class System:
    """How one system scores queries ``[Nq, Lq, dim]`` with documents ``[Nd, Ld, dim]``."""

    score: Callable[[Tensor, Tensor], Any]
    dtypes: tuple[str, ...] = ("float32",)
    has_gradients: bool = True
    allowed: float | None = None  # error of scores, where it is not that of the dtype


def einsum(queries: Tensor, documents: Tensor) -> Tensor:
    """As PyLate scores."""
    return torch.einsum("ash,bth->abst", queries, documents).max(-1).values.sum(-1)


def systems() -> dict[str, System]:
    """Everything that is installed."""
    found = {
        "lateint": System(lateint_kernels.maxsim, ("float32", "float16", "bfloat16")),
        "torch": System(einsum, ("float32", "bfloat16")),
        "torch.compile": System(torch.compile(einsum), ("float32", "bfloat16")),
    }
    if find_spec("late_interaction_kernels"):
        from late_interaction_kernels import MaxSimScorer

        found["late-interaction-kernels"] = System(MaxSimScorer(normalize=False), ("float32", "bfloat16"))
    if find_spec("numkong"):
        found["NumKong"] = System(numkong_scores, ("float32", "bfloat16"), False, allowed=0.2)
    if find_spec("maxsim_cpu"):
        found["maxsim-cpu"] = System(maxsim_cpu_scores, ("float32",), False)
    return found


def numkong_scores(queries: Tensor, documents: Tensor) -> Tensor:
    """NumKong sums 1 - cosine over the query's tokens. Maxima of float32 are looked for with int8."""
    import numkong

    left, right = (
        [numkong.maxsim_pack(numkong.from_dlpack(x) if x.dtype == torch.bfloat16 else x.numpy()) for x in side]
        for side in (queries, documents)
    )
    distances = torch.tensor([[numkong.maxsim_packed(query, document) for document in right] for query in left])
    return queries.shape[1] - distances


def maxsim_cpu_scores(queries: Tensor, documents: Tensor) -> Tensor:
    """One call for each query."""
    import maxsim_cpu

    right = documents.numpy()
    return torch.tensor([list(maxsim_cpu.maxsim_scores(query.numpy(), right)) for query in queries])


class Case:
    """One system with one dtype: what is timed, and what came of it."""

    def __init__(self, name: str, system: System, dtype: str, tensors: tuple[Tensor, Tensor], grad_scores: Tensor):
        self.name, self.system, self.dtype, self.grad_scores = name, system, dtype, grad_scores
        self.tensors = [x.to(getattr(torch, dtype)) for x in tensors]
        self.leaves = [x.clone().requires_grad_() for x in self.tensors]
        self.best: dict[str, float] = {}

    def forward(self) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.system.score(*self.tensors)
        return scores

    def step(self) -> tuple[Tensor, ...]:
        scores = self.system.score(*self.leaves)
        return torch.autograd.grad(scores, self.leaves, self.grad_scores.to(scores.dtype))

    def time(self) -> None:
        for kind, run in (("forward", self.forward), ("step", self.step)):
            if kind == "step" and not self.system.has_gradients:
                continue
            start = time.perf_counter()
            run()
            self.best[kind] = min(self.best.get(kind, float("inf")), (time.perf_counter() - start) * 1e3)

    def check(self) -> dict[str, float]:
        """Errors against float64, of the same rounded tokens."""
        leaves = [x.detach().double().requires_grad_() for x in self.leaves]
        exact = einsum(*leaves)
        gradients = torch.autograd.grad(exact, leaves, self.grad_scores.double())
        errors = {"scores": error(self.forward(), exact.detach())}
        if self.system.has_gradients:
            errors["queries"], errors["documents"] = map(error, self.step(), gradients)
        return errors

    def is_right(self, errors: dict[str, float]) -> bool:
        """Whether the scores are what the dtype allows; ours must be."""
        right = errors["scores"] < (self.system.allowed or (1e-5 if self.dtype == "float32" else 0.05))
        assert right or self.name != "lateint", (self.dtype, errors)
        return right

    def extra_bytes(self) -> int | None:
        """How much a step raises the peak of this process, beyond the gradients; None where that cannot be had."""
        if not self.system.has_gradients or platform.system() != "Linux":
            return None
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = peak_rss()
        gradients = self.step()
        return peak_rss() - before - sum(x.nbytes for x in gradients)


def error(found: Tensor, exact: Tensor) -> float:
    """The largest, relative to the largest number."""
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


def run(name: str, shape: TrainShape, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Rows of one shape, the systems taking turns."""
    generator = torch.Generator().manual_seed(0)

    def unit(length: int) -> Tensor:
        numbers = torch.randn(shape.Nq, length, shape.dim, generator=generator)
        return torch.nn.functional.normalize(numbers, dim=2)

    tensors = unit(shape.Lq), unit(shape.Ld)
    grad_scores = torch.randn(shape.Nq, shape.Nq, generator=generator)
    cases = [
        Case(system, how, dtype, tensors, grad_scores) for system, how in systems().items() for dtype in how.dtypes
    ]
    checked = [(case, case.check()) for case in cases]
    wrong = [(case, errors) for case, errors in checked if not case.is_right(errors)]
    for case, errors in wrong:
        print(f"{name}: {case.name} {case.dtype} is not timed, its scores are off by {errors['scores']:.2g}")
    cases, errors = zip(*(pair for pair in checked if pair not in wrong), strict=True)
    for _ in range(rounds):
        for case in cases:
            case.time()
    rows = [
        {"shape": name, "system": case.name, "dtype": case.dtype, "threads": threads, "errors": found}
        | {f"{kind}_ms": best for kind, best in case.best.items()}
        | {"extra_bytes": case.extra_bytes()}
        for case, found in zip(cases, errors, strict=True)
    ]
    show(name, rows)
    return rows


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """A table, with everything also as a multiple of torch's einsum in float32."""
    base = next(row for row in rows if (row["system"], row["dtype"]) == ("torch", "float32"))

    def cell(row: dict[str, Any], key: str, unit: float) -> str:
        if row.get(key) is None:
            return f"{'-':>20}"
        return f"{row[key] / unit:>10.2f} ({base[key] / row[key]:>6.1f}x)"

    print(f"\n{name}\n{'':<36}{'forward ms':>20}{'with backward ms':>20}{'extra MB':>20}")
    for row in rows:
        label = f"{row['system']} {row['dtype']}"
        print(
            f"{label:<36}" + "".join(cell(row, *x) for x in (("forward_ms", 1), ("step_ms", 1), ("extra_bytes", 1e6)))
        )


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in ("torch", "late-interaction-kernels", "numkong", "maxsim-cpu", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measures, prints, and writes a JSON file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--shapes", default="colbert-64", help=f"of {', '.join(TRAIN_SHAPES)}; several with commas")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    threads = _cpu.default_threads()
    torch.set_num_threads(threads)
    rows = [
        row for name in arguments.shapes.split(",") for row in run(name, TRAIN_SHAPES[name], arguments.rounds, threads)
    ]
    if arguments.out is None:
        return
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    about = {"versions": versions(), "isa": _cpu.active_isa(), "machine": platform.machine(), "commit": commit}
    arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
