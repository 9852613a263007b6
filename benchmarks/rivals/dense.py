"""Exact MaxSim kernels side by side: one query of 32 tokens against 1,000 documents of 300 tokens, one core.

Tokens are real: the first 300,000 document tokens of the folder, cut anew every 300. NumKong scores documents it has
packed before, and so does lateint with a sketch; what that costs is reported beside it, because a caller whose
documents come from elsewhere pays it. Every result is compared with float64 after the timing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embeddings import fixed_queries, load
from benchmarks.rivals.measure import versions

DOCUMENTS, LENGTH, QUERY_LENGTH = 1000, 300, 32

Scores = Callable[[], np.ndarray]


def inputs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Queries ``[32, dim]`` and documents ``[1000, 300, dim]``, float32."""
    tokens = load(folder).tokens
    documents = np.resize(tokens[: DOCUMENTS * LENGTH], (DOCUMENTS, LENGTH, tokens.shape[1])).astype(np.float32)
    query = np.concatenate([q.tokens for q in fixed_queries(folder)[:32]])[:QUERY_LENGTH]
    return np.ascontiguousarray(query), documents


def rival_cases(query: np.ndarray, documents: np.ndarray) -> dict[tuple[str, str], tuple[Scores, Callable[[], Any]]]:
    """``(system, dtype)`` to the timed scoring call and the preparation it needs, which is timed apart."""
    import maxsim_cpu
    import numkong
    import torch

    torch.set_num_threads(1)
    query16, documents16 = torch.from_numpy(query).bfloat16(), torch.from_numpy(documents).bfloat16()
    packed: dict[str, tuple[Any, list[Any]]] = {}

    def einsum(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
        return torch.einsum("qd,nld->nql", left, right).amax(2).float().sum(1).numpy()

    def product(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
        similarity = right.view(-1, right.shape[2]) @ left.T
        return similarity.view(DOCUMENTS, LENGTH, QUERY_LENGTH).amax(1).float().sum(1).numpy()

    def pack(dtype: str) -> None:
        tensors = {"float32": (query, documents), "bfloat16": (query16, documents16)}[dtype]
        left, right = tensors
        if dtype == "bfloat16":
            left, right = numkong.from_dlpack(left), [numkong.from_dlpack(document) for document in right]
        packed[dtype] = (numkong.maxsim_pack(left), [numkong.maxsim_pack(document) for document in right])

    def numkong_scores(dtype: str) -> np.ndarray:
        left, right = packed[dtype]
        distances = np.array([numkong.maxsim_packed(left, document) for document in right])
        return QUERY_LENGTH - distances  # it sums 1 - cosine

    def nothing() -> None:
        return None

    return {
        ("torch einsum", "float32"): (lambda: einsum(torch.from_numpy(query), torch.from_numpy(documents)), nothing),
        ("torch einsum", "bfloat16"): (lambda: einsum(query16, documents16), nothing),
        ("torch matmul", "float32"): (lambda: product(torch.from_numpy(query), torch.from_numpy(documents)), nothing),
        ("torch matmul", "bfloat16"): (lambda: product(query16, documents16), nothing),
        ("maxsim-cpu", "float32"): (lambda: np.array(maxsim_cpu.maxsim_scores(query, documents)), nothing),
        ("NumKong", "float32"): (lambda: numkong_scores("float32"), lambda: pack("float32")),
        ("NumKong", "bfloat16"): (lambda: numkong_scores("bfloat16"), lambda: pack("bfloat16")),
    }


def own_cases(query: np.ndarray, documents: np.ndarray) -> dict[tuple[str, str], tuple[Scores, Callable[[], Any]]]:
    """The same for lateint's operator."""
    import lateint_kernels

    lengths = np.full(DOCUMENTS, LENGTH)
    flat = documents.reshape(-1, documents.shape[2])
    ragged = lateint_kernels.Ragged.from_lengths(flat, lengths)
    query16 = lateint_kernels.to_bfloat16(query)
    sketched: list[Any] = []
    ragged16 = lateint_kernels.Ragged.from_lengths(lateint_kernels.to_bfloat16(flat), lengths)

    def nothing() -> None:
        return None

    def sketch() -> None:
        sketched[:] = [lateint_kernels.Sketched.of(ragged)]

    return {
        ("lateint Sketched", "float32"): (lambda: lateint_kernels.maxsim(query, sketched[0], threads=1), sketch),
        ("lateint", "float32"): (lambda: lateint_kernels.maxsim(query, ragged, threads=1), nothing),
        ("lateint", "bfloat16"): (lambda: lateint_kernels.maxsim(query16, ragged16, threads=1), nothing),
    }


def fastest(call: Callable[[], Any], seconds: float) -> float:
    """Best of as many calls as fit, in milliseconds."""
    call()
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before)
    return best * 1e3


def main() -> None:
    """Times the kernels of this environment: ``own`` or ``rivals``."""
    job = json.loads(Path(sys.argv[1]).read_text())
    query, documents = inputs(Path(job["data"]))
    cases = own_cases(query, documents) if job["kernels"] == "own" else rival_cases(query, documents)
    exact = np.array([(doc.astype(np.float64) @ query.T.astype(np.float64)).max(0).sum() for doc in documents])
    rows = []
    for (system, dtype), (scores, prepare) in cases.items():
        before = time.perf_counter()
        prepare()
        preparation = (time.perf_counter() - before) * 1e3
        best = fastest(scores, job["seconds"])
        error = float(np.abs(np.asarray(scores(), np.float64) - exact).max())
        rows.append({"system": system, "dtype": dtype, "ms": best, "preparation_ms": preparation, "max_error": error})
    names = ("lateint",) if job["kernels"] == "own" else ("torch", "maxsim-cpu", "numkong")
    Path(sys.argv[2]).write_text(json.dumps({"versions": versions(names), "rows": rows}))


if __name__ == "__main__":
    main()
