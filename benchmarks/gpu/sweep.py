"""Other sizes of tiles than those in `lateint_kernels.gpu.launch`: to change its table by measurement."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.cases import Case, inputs
from benchmarks.gpu.measure import Stopwatch
from lateint_kernels import maxsim
from lateint_kernels.dense.triton import maxsim as triton

NAMES = ("train", "train-128", "train-1024", "preflmr-256", "rerank-10000", "train-256-d320", "train-32-d4096")


def sweep(cases: dict[str, Case], device: str, watch: Stopwatch) -> dict[str, list[dict[str, Any]]]:
    """For some cases, every choice with its milliseconds, fastest first; choices that do not fit are left out."""
    return {name: forwards(cases[name], device, watch) for name in NAMES if name in cases}


def forwards(case: Case, device: str, watch: Stopwatch) -> list[dict[str, Any]]:
    """Forward alone, and before a backward."""
    given = inputs(case, device)
    leaf = given.queries.clone().requires_grad_()
    chosen = triton.architecture(torch.device(device))
    before, found = triton.tiles, []
    for block_m, block_n, warps, stages, registers in choices():
        sizes = {"tiles": (block_m, block_n, warps, stages), "registers": registers}
        last = {"warps": warps, "stages": stages, "registers": registers}

        def tiles(
            arch: Any, rows: int, Ld: int, dim: int, itemsize: int, block: Any = (block_m, block_n), last: Any = last
        ) -> Any:
            first = replace(chosen, block_m=block[0], block_n=(block[1],))
            return replace(before(first, rows, Ld, dim, itemsize), **last)

        try:
            triton.tiles = tiles
            with torch.no_grad():
                alone = watch.time(lambda: maxsim(given.queries, given.documents, backend="triton"))
            training = watch.time(lambda: maxsim(leaf, given.documents, backend="triton"))
        except Exception as error:
            found.append({**sizes, "cannot": str(error)[:200]})
        else:
            found.append({**sizes, "forward": alone, "training_forward": training})
        finally:
            triton.tiles = before
        if device == "cpu":
            break
    return sorted(found, key=lambda entry: entry.get("training_forward", {"ms": float("inf")})["ms"])


def choices() -> Iterator[tuple[int, int, int, int, int | None]]:
    """Rows, tokens, warps, stages, and registers of a thread at most: 168 let three programs of 4 warps run at once."""
    for block_m, block_n in ((64, 64), (64, 128), (128, 64), (128, 128), (256, 64), (256, 128)):
        for warps in (4, 8):
            for stages in (2, 3, 4):
                if block_m * block_n // warps <= 4096:
                    yield block_m, block_n, warps, stages, None
                    if warps == 4 and stages == 2:
                        yield block_m, block_n, warps, stages, 168
