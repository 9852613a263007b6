"""Compiles the Triton kernels for GPUs that need not be there, and prints what became of them as JSON.

A script, since it must not run in Triton's interpreter, which tests have switched on.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lateint_kernels.codes.index_tensors import CentreTensors, IndexTensors, QueryTensors
from lateint_kernels.codes.triton import build, search
from lateint_kernels.dense.problem import Problem
from lateint_kernels.dense.runs import Runs
from lateint_kernels.dense.triton import maxima, maxsim, pooling, retrieved
from lateint_kernels.gpu import launch

TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.int16: "*i16",
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.float64: "*fp64",
    torch.bool: "*i1",
}
BINARIES = Path(triton.__file__).parent / "backends/nvidia/bin"


def problem(Nq=256, Lq=32, Nd=256, Ld=180, dim=128, dtype=torch.bfloat16, ragged=False, pairs=0, **given):
    """One without numbers: sizes are all that a compiler sees."""

    def empty(*shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device="meta")

    TQ, TD = Nq * Lq - ragged, Nd * Ld - ragged
    factors = {
        "query_weights": lambda: empty(TQ),
        "query_inverse_norms": lambda: empty(TQ),
        "document_inverse_norms": lambda: empty(TD),
        "document_scales": lambda: empty(TD),
        "document_mask": lambda: empty(TD, dtype=torch.bool),
    }
    index = {name: empty(pairs, dtype=torch.int64) for name in ("query_index", "document_index") if pairs}
    return Problem(
        empty(TQ, dim, dtype=dtype),
        empty(Nq + 1, dtype=torch.int64),
        empty(TD, dim, dtype=dtype),
        empty(Nd + 1, dtype=torch.int64),
        Lq,
        Ld,
        **{name: factors[name]() for name, wanted in given.items() if wanted},
        **index,
    )


def empty(*shape, dtype):
    return torch.empty(shape, dtype=dtype, device="meta")


def index(nbits, width, documents=8 << 20, Ld=128, K=1 << 20):
    """A billion tokens, without numbers."""
    T, depth, whole = documents * Ld, -(-width // 64) * 64, nbits == 8
    return IndexTensors(
        nbits=nbits,
        width=width,
        centroids=empty(K, depth, dtype=torch.int8),
        cells=empty(1024, depth, dtype=torch.int8),
        cell_offsets=empty(1025, dtype=torch.int64),
        largest_cell=3000,
        offsets=empty(documents + 1, dtype=torch.int64),
        codes=empty(T, width * nbits // 8, dtype=torch.uint8),
        scales=None if whole else empty(T, dtype=torch.uint8),
        centroid_low=None if whole else empty(T, dtype=torch.int16),
        centroid_high=None if whole else empty(T, dtype=torch.uint8),
        list_offsets=empty(1, K + 2, dtype=torch.int64),
        list_documents=empty(T // 2, dtype=torch.int32),
        cuts=np.broadcast_to(np.int64(0), documents + 1),
    )


def queries(Nq, Lq, width):
    """Queries of one length, without numbers."""
    return QueryTensors(
        bytes=empty(Nq * Lq, -(-width // 64) * 64, dtype=torch.int8),
        scales=empty(Nq * Lq, dtype=torch.float64),
        constants=empty(Nq, dtype=torch.float64),
        offsets=empty(Nq + 1, dtype=torch.int64),
        cuts=np.arange(Nq + 1) * Lq,
    )


def centres(count, depth):
    """Centroids or cells, without numbers."""
    return CentreTensors(empty(count, depth, dtype=torch.int8), empty(count, dtype=torch.int32))


# depth, and for which capabilities
BUILDS = {
    "build": (128, (80, 90, 100)),
    "build-64": (64, (90,)),
    "build-256": (256, (80, 90, 100)),
    "build-320": (320, (90,)),
    "build-768": (768, (80, 90, 100)),
    "build-4096": (4096, (90,)),
}
# nbits, width, queries and their length, and for which capabilities
SEARCHES = {
    "search": (4, 128, 1, 32, (80, 90, 100)),
    "search-batch": (2, 128, 64, 32, (80, 90, 100)),
    "search-1-bit": (1, 128, 1, 32, (90,)),
    "search-8-bits": (8, 128, 1, 32, (90,)),
    "search-long": (4, 128, 1, 320, (80, 90, 100)),
    "search-longest": (4, 128, 1, 1024, (90,)),
    "search-d96": (2, 96, 1, 32, (90,)),
    "search-d768": (4, 768, 1, 32, (90,)),
}
NORMS = {"query_inverse_norms": True, "document_inverse_norms": True}
PROBLEMS = {
    "training": {},
    "masked": {"ragged": True, "query_weights": True, "document_mask": True},
    "everything": {
        "dtype": torch.float16,
        "ragged": True,
        "Lq": 180,
        **NORMS,
        "query_weights": True,
        "document_scales": True,
        "document_mask": True,
    },
    "reranking": {"Nq": 1, "Nd": 10000, "Ld": 300},
    "pairs": {"dtype": torch.float16, "pairs": 4096, "ragged": True, **NORMS},
    "pages": {"Lq": 1024, "Ld": 1024},
    "wide": {"dim": 320, **NORMS},
    "wide-everything": {
        "dim": 256,
        "ragged": True,
        **NORMS,
        "query_weights": True,
        "document_scales": True,
        "document_mask": True,
    },
    "widest": {"dim": 4096, "Ld": 5000},
    "float32": {"dtype": torch.float32},
}
ALL = {"forward", "query_gradients", "sort_winners", "document_gradients"}
WANTED = {  # what else differs from the kernels of the first two
    80: {"training": ALL, "everything": {"forward"}},
    90: {name: {"forward", "document_gradients"} for name in PROBLEMS} | {"training": ALL, "everything": ALL},
    100: {"training": ALL, "everything": {"forward"}},
}
SMOOTH = {80: ["training"], 90: ["training", "everything", "wide", "widest", "float32"], 100: ["training"]}
XTR = {80: ["training"], 90: ["training", "everything", "wide", "widest", "float32"], 100: ["training", "everything"]}

# Tokens of each run, and whether they are as far apart as their cosine says
POOLED = {"pool": (180, False), "pool-cosine": (500, True), "pool-pages": (1030, True), "pool-longest": (2048, False)}


def compiled(planned, capability):
    """What `Launch.run` would compile on such a device."""
    constants, signature, attributes = dict(planned.constants), {}, {}
    for number, name in enumerate(planned.kernel.arg_names):
        value = planned.arguments.get(name)
        if isinstance(value, int | float):
            signature[name] = "i32" if isinstance(value, int) else "fp32"
        elif value is None:
            constants.setdefault(name, None)
            signature[name] = "constexpr"
        else:
            signature[name] = TYPES[value.dtype]
            attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(planned.kernel, signature, constants, attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=planned.options)


def report(kernel):
    """Registers, spills and shared memory in bytes, and which instructions there are."""
    ptx, ttgir = kernel.asm["ptx"], kernel.asm["ttgir"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([BINARIES / "cuobjdump", "--dump-resource-usage", file.name], text=True)
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))
    return {
        "registers": registers,
        "spilled": stack,
        "shared": kernel.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync") + ptx.count("tcgen05.mma"),
        "fused": len(re.findall(r"\bfma\.rn\.f(?:32|64)", ptx)),
        "nan_max": ptx.count("max.NaN.f32"),
        "ahead": max(int(n) for n in re.findall(r"async_wait.*?num = (\d+)", ttgir) or [-1]),
        "atomics": len(re.findall(r"\b(?:atom|red)\.", ptx)),
    }


def main(capability):
    """One line for each kernel."""
    for name, wanted in WANTED[capability].items():
        for planned in maxsim.all_launches(problem(**PROBLEMS[name]), launch.ARCHITECTURES[capability]):
            kernel, argmax = planned.kernel.__name__, planned.arguments.get("argmax")
            if kernel in wanted and (argmax is not None or name == "training" or kernel == "document_gradients"):
                found = {"capability": capability, "problem": name, "kernel": kernel}
                print(json.dumps(found | report(compiled(planned, capability))), flush=True)
    for name in SMOOTH[capability]:
        for planned in maxima.all_launches(problem(**PROBLEMS[name]), launch.ARCHITECTURES[capability]):
            found = {"capability": capability, "problem": name, "kernel": planned.kernel.__name__}
            print(json.dumps(found | report(compiled(planned, capability))), flush=True)
    for name in XTR[capability]:
        for planned in retrieved.all_launches(problem(**PROBLEMS[name]), 320, launch.ARCHITECTURES[capability]):
            kernel = "retrieve_members" if planned.arguments.get("members") is not None else planned.kernel.__name__
            found = {"capability": capability, "problem": name, "kernel": kernel}
            print(json.dumps(found | report(compiled(planned, capability))), flush=True)
    for name, (length, cosine) in POOLED.items():
        runs = Runs(np.arange(101) * length, np.full(100, length // 2), cosine)
        tokens, heads = empty(100 * length, 128, dtype=torch.bfloat16), empty(100 * length, dtype=torch.int64)
        for planned in list(pooling.all_launches(tokens, runs, heads))[:2]:
            found = {"capability": capability, "problem": name, "kernel": planned.kernel.__name__}
            print(json.dumps(found | report(compiled(planned, capability))), flush=True)
    for name, (nbits, width, Nq, Lq, capabilities) in SEARCHES.items():
        if capability in capabilities:
            arch = launch.ARCHITECTURES[capability]
            for planned in search.all_launches(index(nbits, width), queries(Nq, Lq, width), 1024, arch):
                found = {"capability": capability, "problem": name, "kernel": planned.kernel.__name__}
                print(json.dumps(found | report(compiled(planned, capability))), flush=True)
    for name, (depth, capabilities) in BUILDS.items():
        if capability in capabilities:
            arch = launch.ARCHITECTURES[capability]
            rows = empty(1 << 20, depth, dtype=torch.int8)
            for planned in build.all_launches(rows, centres(1 << 20, depth), centres(1 << 10, depth), arch):
                found = {"capability": capability, "problem": name, "kernel": planned.kernel.__name__}
                print(json.dumps(found | report(compiled(planned, capability))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
