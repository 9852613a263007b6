"""Executes what Triton makes of our kernels (ptx), and prints as JSON how it compares with plain torch.

A script, since it must not run in Triton's interpreter, which tests have switched on:
``execute_triton.py CAPABILITY [short | long]``.
"""

import itertools
import json
import os
import sys
import time
from dataclasses import replace

os.environ.pop("TRITON_INTERPRET", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
from ptx.triton_launch import install
from random_index import make
from test_cuda import exact, make_problem
from test_retrieved_backends import definition

from lateint_kernels.codes.device.engine import DeviceEngine
from lateint_kernels.codes.index_tensors import CentreTensors
from lateint_kernels.codes.torch import build as torch_build
from lateint_kernels.codes.torch import search as torch_search
from lateint_kernels.codes.triton import build, probe, search
from lateint_kernels.dense import cpp, maxima_torch
from lateint_kernels.dense import torch as torch_dense
from lateint_kernels.dense.runs import Runs
from lateint_kernels.dense.triton import maxima, maxsim, pooling, retrieved

# What a group of the suite runs for each capability is "short"; a command runs everything.
DENSE = {
    "uniform": dict(query_lengths=[32] * 4, document_lengths=[70] * 3, dim=128),
    "everything": dict(
        query_lengths=[32, 9, 20, 5] * 2,
        document_lengths=[100, 30, 70],
        dim=128,
        normalize=True,
        weights=True,
        scales=True,
        mask=True,
    ),
    "d96": dict(query_lengths=[20, 3, 11], document_lengths=[70, 9, 40], dim=96, dtype="fp16", normalize=True),
    "pairs": dict(
        query_lengths=[40, 3, 17], document_lengths=[60, 5, 33], dim=64, pairs=[(0, 2), (0, 1), (1, 0), (2, 2)]
    ),
    "float32": dict(query_lengths=[16, 7], document_lengths=[40, 17], dim=64, dtype="fp32"),
}
SEARCHES = [(128, 2), (128, 4), (128, 1), (128, 8), (40, 4), (640, 2)]  # width and bits
DEPTHS = (128, 64, 256)
POOLED = {"pool": ([9, 1, 24, 17, 3], 2, False), "cosine": ([24, 2, 9], 3, True), "pages": ([260, 9], 2, False)}
SHORT = {
    80: {
        "dense": ["d96"],
        "smooth": [],
        "xtr": [("d96", 5)],
        "pooled": ["cosine"],
        "searches": [(128, 4)],
        "depths": [],
    },
    90: {
        "dense": ["everything"],
        "smooth": ["d96"],
        "xtr": [("d96", 5)],
        "pooled": ["pool"],
        "searches": [(128, 2)],
        "depths": [128],
    },
}
LONG = {
    "dense": list(DENSE),
    "smooth": [name for name in DENSE if name != "pairs"],
    "xtr": [(name, k) for name in DENSE if name != "pairs" for k in (9, 150)],
    "pooled": list(POOLED),
    "searches": SEARCHES,
    "depths": DEPTHS,
}


def dense(name):
    """Errors of the scores and of each gradient, relative to the largest number."""
    problem = make_problem(**DENSE[name])
    wanted, where, gradients = exact(problem)
    scores, argmax = maxsim.maxsim(problem, True)
    yield f"forward {name}", float((scores.double() - wanted).abs().max() / wanted.abs().max()) <= 1e-5
    if problem.query_weights is None:
        there = torch.ones_like(where, dtype=torch.bool)
        if problem.query_index is not None:  # rows past the end of a query hold anything
            there = torch.arange(where.shape[1]) < problem.query_offsets.diff()[problem.query_index][:, None]
        yield f"argmax {name}", torch.equal(argmax[there], where[there])
    grad_scores = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    grad_scores.view(-1)[::3] = 0.0
    found = maxsim.maxsim_backward(problem, grad_scores, where, (True, True, True))
    rounding = {"fp32": 2**-18, "bf16": 2**-7, "fp16": 2**-9}[DENSE[name].get("dtype", "bf16")]
    for of, ours, theirs in zip(("queries", "documents", "weights"), found, gradients(grad_scores), strict=True):
        if of == "weights" and problem.query_weights is not None:
            ours = torch.where(problem.query_weights != 0, ours, 0)
        yield f"gradient of {of} {name}", bool(((ours - theirs).abs() <= rounding * theirs.abs().max()).all())


def special():
    """Small integers, so that sums are exact and many are equal; negative, masked, infinite and unknown ones too."""
    problem = make_problem([32, 20, 7], [100, 33, 64, 9], 64, "fp16", mask=True)
    rng = torch.Generator().manual_seed(2)
    for tokens in (problem.queries, problem.documents):
        tokens.copy_(torch.randint(-1, 2, tokens.shape, generator=rng))
        tokens[:, 0] = torch.where(tokens[:, 1] == 0, 1, -1)
    second, third, fourth = problem.document_offsets[1:4].tolist()
    problem.documents[second:third, 0] = -100 * problem.queries[0, 0]
    problem.documents[[third + 3, third + 40], 0] = torch.inf
    problem.document_mask[[third + 3, third + 40]] = True
    problem.documents[fourth + 1 :: 2] = torch.nan
    problem.document_mask[fourth + 3] = True
    wanted, where = torch_dense.maxsim(problem, True)
    scores, argmax = maxsim.maxsim(problem, True)
    same = torch.equal(scores.nan_to_num(7), wanted.nan_to_num(7))
    yield "forward special", same and bool(wanted.isinf().any() and wanted.isnan().any())
    yield "argmax special", torch.equal(argmax[:3], where[:3])  # the fourth document's scores are not numbers


def smooth(name):
    """The smooth maximum and its gradients, as torch's own in float64."""
    problem = make_problem(**{**DENSE[name], "scales": False, "pairs": None})
    wide = replace(problem, queries=problem.queries.double(), documents=problem.documents.double())
    for side in (wide.queries, wide.documents):
        side.requires_grad_()
    wanted = maxima_torch.soft_maxima(wide, 1.0)
    found = maxima.soft_maxima(problem, 1.0)
    yield f"soft_maxima {name}", float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-5
    given = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(wanted, (wide.queries, wide.documents), given.double())
    rounding = {"fp32": 2**-18, "bf16": 2**-7, "fp16": 2**-9}[DENSE[name].get("dtype", "bf16")]
    mine = maxima.soft_maxima_backward(problem, 1.0, found, given, (True, True))
    for of, ours, theirs in zip(("queries", "documents"), mine, gradients, strict=True):
        same = bool(((ours - theirs).abs() <= rounding * theirs.abs().max()).all())
        yield f"gradient of smooth {of} {name}", same


def xtr(name, k):
    """Maxima, where they are, and the last of k products, as sorted in float64; many equal products as well."""
    problem = make_problem(**{**DENSE[name], "scales": False, "pairs": None})
    there = slice(None) if problem.query_weights is None else problem.query_weights != 0
    (wanted, last), (found, argmax, least) = definition(problem, k), retrieved.retrieved(problem, k)
    where = torch_dense.maxsim(maxima_torch.one_by_one(problem), True)[1]
    yield f"retrieved {name} {k}", float((found - wanted).abs().max() / wanted.abs().max()) <= 1e-5
    yield f"argmax of retrieved {name} {k}", torch.equal(argmax[:, there], where[:, there])
    yield f"least of retrieved {name} {k}", float((least - last).abs().max() / wanted.abs().max()) <= 1e-5
    for tokens in (problem.queries, problem.documents):
        tokens.clamp_(-1, 1).round_()
    plain = replace(problem, query_inverse_norms=None, document_inverse_norms=None)
    (wanted, last), (found, _, least) = definition(plain, k), retrieved.retrieved(plain, k)
    yield f"equal products {name} {k}", torch.equal(found.double(), wanted) and torch.equal(least.double(), last)


def pooled(name):
    """Clusters of tokens of which some are equal, infinite or unknown, the same as those of C++."""
    lengths, factor, cosine = POOLED[name]
    tokens = torch.randn(sum(lengths), 8, generator=torch.Generator().manual_seed(3))
    tokens[::3] = tokens[::3].round()
    tokens[5:8] = torch.tensor([torch.nan, torch.inf, torch.inf])[:, None]
    runs = Runs(np.cumsum([0, *lengths]), np.array([-(-n // factor) for n in lengths]), cosine)
    yield f"cluster {name}", torch.equal(pooling.cluster(tokens, runs, 0), cpp.cluster(tokens, runs, 0))


def engine_of(made):
    return DeviceEngine(made.codec, made.segments, "cpu", "torch")


def prepared(ours, rng, lengths, dim):
    cuts = np.concatenate([[0], np.cumsum(lengths)])
    return ours.prepared(rng.standard_normal((cuts[-1], dim)).astype(np.float32), cuts)


def products(width, nbits):
    """Stages of a search, the same integers; its sums, the same bits."""
    rng = np.random.default_rng(width + nbits)
    lengths, query_lengths = [1, 32, 33, 64, 0, 70, 128], [1, 3, 20]
    made = make(rng, lengths, width=width, nbits=nbits, cuts=(2,))
    ours = engine_of(made)
    queries = prepared(ours, rng, query_lengths, width)
    positions = torch.tensor([[0, 1, 2, 3, 4], [5, -1, 6, 1, 4], [2, 2, 0, 5, 6]])
    wanted, found = (module.best_products(ours.index, queries, positions) for module in (torch_search, search))
    there = [(i, c) for i, c in itertools.product(range(3), range(5)) if positions[i, c] >= 0]
    same = [
        torch.equal(found[i, c, : query_lengths[i]], wanted[i, c, : query_lengths[i]])
        for i, c in there
        if lengths[positions[i, c]]
    ]
    yield f"best_products {width} {nbits}", all(same)
    scales, constants = torch.rand(3, 20, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    sums = [module.weighted(wanted, scales, constants) for module in (torch_search, search)]
    yield f"weighted {width} {nbits}", torch.equal(*sums)
    tokens = torch.from_numpy(rng.standard_normal((21, width)).astype(np.float32))
    rotated = [module.rotate(tokens, ours._rotation) for module in (torch_search, search)]
    yield f"rotate {width}", rotated[0].numpy().tobytes() == rotated[1].numpy().tobytes()


def probes(width, count):
    rng = np.random.default_rng(width)
    made = make(rng, [5] * 40, width=width, count=count, cells=7)
    ours = engine_of(made)
    queries = prepared(ours, rng, [1, 7, 33], width)
    wanted, found = (m.probe(queries.bytes, ours.index.centroids, 32) for m in (torch_search, search))
    yield f"probe {width} {count}", all(map(torch.equal, wanted, found))
    cells = torch_search.probe(queries.bytes, ours.index.cells, 3)[1]
    wanted, found = (m.probe_cells(ours.index, queries.bytes, cells, 16) for m in (torch_search, search))
    there = wanted[0] > torch_search.LEAST
    same = torch.equal(wanted[0], found[0]) and torch.equal(wanted[1][there], found[1][there])
    yield f"probe_cells {width} {count}", same


def builds(depth):
    generator = torch.Generator().manual_seed(depth)
    rows, centroids = (torch.randint(-128, 128, (n, depth), generator=generator, dtype=torch.int8) for n in (150, 300))
    centres = CentreTensors.of(centroids)
    wanted, found = (module.best(rows, centres, 3) for module in (torch_build, build))
    yield f"best {depth}", torch.equal(wanted, found)
    cells = torch.stack([torch.randperm(6, generator=generator)[:2] for _ in range(150)])
    offsets = torch.tensor([0, 50, 51, 120, 200, 260, 300])
    wanted, found = (module.best_of_cells(rows, cells, centres, offsets) for module in (torch_build, build))
    yield f"best_of_cells {depth}", torch.equal(wanted, found)
    offsets = torch.tensor([0, 16, 17, 30, 46, 51, 60])
    wanted, found = (module.all_of_cells(rows, cells, centres, offsets) for module in (torch_build, build))
    yield f"all_of_cells {depth}", torch.equal(wanted, found)
    for nbits in (1, 2, 4):
        tokens = torch.randn(150, depth, generator=generator) * 60
        ids = torch.randint(0, 300, (150,), generator=generator, dtype=torch.int32)
        wanted, found = (module.encode(tokens, ids, centroids, nbits) for module in (torch_build, build))
        yield f"encode {depth} {nbits}", all(map(torch.equal, wanted, found))


def main(capability, form):
    """One line for each comparison."""
    install(capability, maxsim, maxima, retrieved, pooling, search, probe, build)
    chosen = LONG if form == "long" else SHORT[capability]
    cases = itertools.chain(
        *map(dense, chosen["dense"]),
        *map(smooth, chosen["smooth"]),
        *itertools.starmap(xtr, chosen["xtr"]),
        *map(pooled, chosen["pooled"]),
        special(),
        *itertools.starmap(products, chosen["searches"]),
        *itertools.starmap(probes, [(128, 200), (40, 700)] if form == "long" else []),
        *map(builds, chosen["depths"]),
    )
    before = time.process_time()
    for case, same in cases:
        now = time.process_time()
        print(json.dumps({"capability": capability, "case": case, "same": same, "seconds": now - before}), flush=True)
        before = now


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "short")
