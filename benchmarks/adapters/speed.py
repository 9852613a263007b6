"""Times a package's scores and a training step of them on the CPU, with and without its adapter; prints JSON.

    python benchmarks/adapters/speed.py pylate

Run by run.py in the package's environment. Both are called in turns, and the best of all rounds is taken.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import torch

SHAPE = {"Nq": 32, "Lq": 32, "Nd": 32, "Ld": 180, "dim": 128}
ROUNDS = 15


def main(name: str) -> None:
    adapter = import_module(f"lateint_kernels.adapters.{name}")
    scores = SCORES[name]()
    generator = torch.Generator().manual_seed(0)
    queries, documents = (
        torch.nn.functional.normalize(torch.randn(*shape, SHAPE["dim"], generator=generator), dim=-1)
        for shape in ((SHAPE["Nq"], SHAPE["Lq"]), (SHAPE["Nd"], SHAPE["Ld"]))
    )
    with torch.no_grad():
        score = best({"theirs": nullcontext, "ours": adapter.patch}, lambda: scores(queries, documents))
    queries.requires_grad_(), documents.requires_grad_()

    def step() -> None:
        torch.nn.functional.cross_entropy(scores(queries, documents), torch.arange(SHAPE["Nq"])).backward()
        queries.grad = documents.grad = None

    train = best({"theirs": nullcontext, "ours": adapter.patch}, step)
    print(json.dumps({"shape": SHAPE, "threads": torch.get_num_threads(), "scores": score, "step": train}))


def best(
    ways: dict[str, Callable[[], Any]], function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The shortest time of each way in milliseconds, and how many times faster ours is."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            with way():
                start = clock()
                function()
                if round_:  # the first one warms up
                    times[name].append(1e3 * (clock() - start))
    shortest = {f"{name}_ms": round(min(found), 2) for name, found in times.items()}
    return {**shortest, "speedup": round(min(times["theirs"]) / min(times["ours"]), 2)}


# From queries and documents to the matrix that a package's contrastive loss takes.
SCORES: dict[str, Callable[[], Callable[[Any, Any], Any]]] = {
    "pylate": lambda: import_module("pylate.scores").colbert_scores,
    "sentence_transformers": lambda: import_module("sentence_transformers.util").maxsim,
    "colpali": lambda: import_module("colpali_engine.utils.maxsim").maxsim_inbatch,
}

if __name__ == "__main__":
    main(sys.argv[1])
