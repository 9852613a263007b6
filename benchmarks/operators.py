"""Errors of the operators that trainers use beside MaxSim, against float64 of the same rounded tokens.

    python -m benchmarks.operators --out benchmarks/results/operator-errors.json

Scores of a batch and their gradients: the smooth maximum, XTR's with and without imputation, MaxSim of pooled tokens,
and MaxSim with the codec in the loop. Clusters and codes are those of `lateint_kernels.reference`. Where torch has the
same score in a line or two, its errors are there, too. Errors are the largest, relative to the largest number.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lateint
import lateint_kernels
from benchmarks.embeddings import write_json
from benchmarks.rivals.run import machine
from benchmarks.shapes import TrainShape
from benchmarks.train import einsum, error
from lateint_kernels import reference, scores
from lateint_kernels.coding import Coding

Tensor = torch.Tensor
Score = Callable[[Tensor, Tensor], Tensor]

SHAPE = TrainShape(8, 32, 40, 128)
TEMPERATURE, K, FACTOR, NBITS = 0.1, 12, 2, 2
DTYPES = ("float32", "float16", "bfloat16")


def smooth(queries: Tensor, documents: Tensor) -> Tensor:
    """As colpali-engine scores."""
    similarities = torch.einsum("ash,bth->abst", queries, documents)
    return TEMPERATURE * (similarities / TEMPERATURE).logsumexp(-1).sum(-1)


def xtr(queries: Tensor, documents: Tensor, impute: bool = False) -> Tensor:
    """As sentence-transformers scores, and with the last of the k similarities for what was not found."""
    similarities = torch.einsum("ash,bth->asbt", queries, documents)
    least = similarities.detach().flatten(2).topk(K).values[..., -1:]
    best = similarities.amax(-1)  # [Nq, Lq, Nd]
    found = best >= least
    total = best.where(found, least if impute else 0).sum(1)
    return total / (best.shape[1] if impute else found.sum(1).clamp(min=1))


def pooled(queries: Tensor, documents: Tensor) -> Tensor:
    """MaxSim with the means of Ward's clusters."""
    count = -(-SHAPE.Ld // FACTOR)
    parts = []
    for document in documents:
        numbers = torch.tensor(reference.clusters(document.detach().numpy(), count))
        shares = torch.nn.functional.one_hot(numbers, count).to(document.dtype)
        parts.append(shares.T @ document / shares.sum(0)[:, None])
    return einsum(queries, torch.stack(parts))


class Coded:
    """MaxSim of documents as their codes give them back, with the gradient straight through."""

    def __init__(self, documents: Tensor) -> None:
        sample = list(documents.numpy())
        self.codec = lateint.train_codec(sample, nbits=NBITS, ncentroids=16, seed=0, progress=False)
        self.coding = Coding(self.codec, cells=0)

    def ours(self, queries: Tensor, documents: Tensor) -> Tensor:
        found: Tensor = lateint_kernels.maxsim(queries, self.coding(documents))
        return found

    def exact(self, queries: Tensor, documents: Tensor) -> Tensor:
        codec = self.codec
        arrays = [codec.arrays[name] for name in ("mean", "rotation", "permutation")]
        tokens = documents.detach().flatten(0, 1).float().numpy()
        coded = reference.coded(tokens, *arrays, codec.rotation.step, codec.arrays["centroids"], codec.nbits)
        rows = torch.from_numpy(np.asarray(coded)).view_as(documents)
        return einsum(queries, documents + (rows - documents).detach())


def operators(documents: Tensor) -> dict[str, dict[str, Score]]:
    """Each operator: ours, its definition, and torch's where it has one."""
    coded = Coded(documents)
    return {
        "smooth maximum": {
            "lateint": lambda q, d: scores.smooth_maxsim(q, d, TEMPERATURE),
            "torch": smooth,
            "exact": smooth,
        },
        "XTR": {"lateint": lambda q, d: scores.xtr(q, d, K), "torch": xtr, "exact": xtr},
        "XTR, imputed": {
            "lateint": lambda q, d: scores.xtr(q, d, K, impute=True),
            "exact": lambda q, d: xtr(q, d, impute=True),
        },
        "pooling, then MaxSim": {
            "lateint": lambda q, d: lateint_kernels.maxsim(q, list(lateint_kernels.pool(list(d), FACTOR))),
            "exact": pooled,
        },
        f"`Coding` of {NBITS} bits, then MaxSim": {"lateint": coded.ours, "exact": coded.exact},
    }


def gradients(score: Score, tokens: list[Tensor], weights: Tensor) -> list[Tensor]:
    """Scores, and the gradients of queries and documents for weights of the scores."""
    leaves = [x.clone().requires_grad_() for x in tokens]
    found = score(*leaves)
    return [found.detach(), *torch.autograd.grad(found, leaves, weights.to(found.dtype))]


def measured(generator: torch.Generator) -> list[dict[str, Any]]:
    def unit(length: int) -> Tensor:
        numbers = torch.randn(SHAPE.Nq, length, SHAPE.dim, generator=generator)
        return torch.nn.functional.normalize(numbers, dim=2)

    queries, documents = unit(SHAPE.Lq), unit(SHAPE.Ld)
    weights = torch.randn(SHAPE.Nq, SHAPE.Nq, generator=generator)
    rows = []
    for name, systems in operators(documents).items():
        exact = systems.pop("exact")
        for dtype in DTYPES:
            tokens = [x.to(getattr(torch, dtype)) for x in (queries, documents)]
            expected = gradients(exact, [x.double() for x in tokens], weights)
            for system, score in systems.items():
                if system == "torch" and dtype == "float16":
                    continue
                found = map(error, gradients(score, tokens, weights), expected)
                errors = dict(zip(("scores", "queries", "documents"), found, strict=True))
                rows.append({"operator": name, "dtype": dtype, "system": system, "errors": errors})
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    out: Path = parser.parse_args().out
    about = {"machine": machine([]), "isa": lateint_kernels._cpu.active_isa(), "shape": vars(SHAPE)}
    write_json(out, {**about, "rows": measured(torch.Generator().manual_seed(0))})


if __name__ == "__main__":
    main()
