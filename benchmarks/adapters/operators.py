"""Times XTR's scores, the smooth maximum and token pooling on the CPU beside the packages' own, all in one run.

    python -m benchmarks.adapters.operators --envs ENVS --out benchmarks/results/operators.json

ENVS holds the environments that ``benchmarks.adapters.run`` made. In each of them this file runs as a script. Scores
are timed with their gradients, in processor time of one thread, which other work on the machine disturbs least. Ours
and theirs are called in turns, and the best of all rounds is taken. So is torch's product of all query tokens with all
document tokens, of which a score whose gradients are dense needs three.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

FACTOR = 2
XTR_K = 256
PAGE = 1030  # tokens of a page image


def main() -> None:
    """Runs this file in each environment and writes what it measured."""
    from benchmarks.adapters.run import PACKAGES, versions
    from benchmarks.embeddings import write_json
    from benchmarks.rivals.run import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(sorted(os.sched_getaffinity(0))), "packages": {}}
    for name in options.only:
        python = options.envs.absolute() / name / "bin" / "python"
        command = [str(python), str(Path(__file__).resolve()), name]
        environment = {**os.environ, "LATEINT_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        report["packages"][name] = {"versions": versions(python), **json.loads(done.stdout)}
        print(name, report["packages"][name], flush=True)
        write_json(options.out, report)


def measure(name: str) -> None:
    """Prints the JSON of one package, in whose environment this runs."""
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    speed = import_module("speed")
    patch = import_module(f"lateint_kernels.adapters.{name}").patch
    shape, generator = speed.SHAPE, torch.Generator().manual_seed(0)

    def tokens(*sizes: int) -> Any:
        return torch.nn.functional.normalize(torch.randn(*sizes, shape["dim"], generator=generator), dim=-1)

    sides = tokens(shape["Nq"], shape["Lq"]), tokens(shape["Nd"], shape["Ld"])
    ways: dict[str, Callable[[], Any]] = {"theirs": nullcontext, "ours": patch}
    found, products = {}, {}
    for dtype in ("float32", "bfloat16"):
        queries, documents = (x.to(getattr(torch, dtype)).requires_grad_() for x in sides)

        def step(score: Callable[[Any, Any], Any], queries: Any = queries, documents: Any = documents) -> None:
            scores = score(queries, documents).float()
            torch.nn.functional.cross_entropy(scores, torch.arange(shape["Nq"])).backward()
            queries.grad = documents.grad = None

        for operator, score in SCORES[name].items():
            label = operator if dtype == "float32" else f"{operator}, {dtype}"
            found[label] = speed.best(ways, partial(step, score), time.process_time)
        flat = [x.detach().flatten(0, 1) for x in (queries, documents)]
        only = {"theirs": nullcontext, "ours": nullcontext}
        product = partial(torch.mm, flat[0], flat[1].T)
        products[dtype] = speed.best(only, product, time.process_time)["theirs_ms"]
    pooled = [tokens(PAGE)] if name == "colpali" else list(tokens(8, shape["Ld"]))
    found["pooling"] = speed.best(ways, lambda: POOLING[name](pooled), time.process_time)
    about = {"shape": shape, "threads": torch.get_num_threads(), "product_ms": products}
    print(json.dumps({**about, "operators": found}))


def _xtr_of_pylate(queries: Any, documents: Any) -> Any:
    return import_module("pylate.scores.xtr").XTRScores(XTR_K)(queries, documents[:, None])


def _xtr_of_sentence_transformers(queries: Any, documents: Any) -> Any:
    scoring = import_module("sentence_transformers.multi_vector_encoder.scoring")
    return scoring.xtr_scores(queries, documents[:, None], top_k=XTR_K)


def _smooth_of_colpali(queries: Any, documents: Any) -> Any:
    losses = import_module("colpali_engine.loss.late_interaction_losses")
    return losses.ColbertLoss(use_smooth_max=True)._inbatch_scores(queries, documents)


def _pooling_of_pylate(documents: list[Any]) -> Any:
    return import_module("pylate.models").ColBERT.pool_embeddings_hierarchical(None, documents, FACTOR, 1)


def _pooling_of_sentence_transformers(documents: list[Any]) -> Any:
    module = import_module("sentence_transformers.multi_vector_encoder.modules.token_pooling")
    return [module.HierarchicalTokenPooling(FACTOR, num_protected_tokens=1).pool_one(x) for x in documents]


def _pooling_of_colpali(pages: list[Any]) -> Any:
    pooler = import_module("colpali_engine.compression.token_pooling").HierarchicalTokenPooler()
    return pooler.pool_embeddings(pages, pool_factor=FACTOR)


SCORES: dict[str, dict[str, Callable[[Any, Any], Any]]] = {
    "pylate": {"xtr": _xtr_of_pylate},
    "sentence_transformers": {"xtr": _xtr_of_sentence_transformers},
    "colpali": {"smooth maximum": _smooth_of_colpali},
}
POOLING: dict[str, Callable[[list[Any]], Any]] = {
    "pylate": _pooling_of_pylate,
    "sentence_transformers": _pooling_of_sentence_transformers,
    "colpali": _pooling_of_colpali,
}

if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1] in SCORES:
        measure(sys.argv[1])
    else:
        main()
