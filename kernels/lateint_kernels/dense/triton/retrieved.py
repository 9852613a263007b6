"""XTR's selection of document tokens by Triton, and the launches that it is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import triton
from torch import Tensor

from lateint_kernels.dense.problem import Problem
from lateint_kernels.dense.triton.maxsim import MOST_DOCUMENTS, token_constants, why_not
from lateint_kernels.dense.triton.selection import choose_groups, last_product, retrieve
from lateint_kernels.dense.triton.sizes import Tiles, documents_each, tiles
from lateint_kernels.gpu.launch import Architecture, Launch, architecture, on

__all__ = ["retrieved", "why_not"]

BYTES = 256 << 20  # of maxima of groups, slots and members at a time, unless a block of query tokens needs more
MOST_NUMBERS = 16384  # of a row that are held in registers; longer ones are read again for every halving
NUMBERS_EACH = 32  # of these, of a thread


def retrieved(problem: Problem, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima ``[TQ, Nd]``, where they are ``[Nd, TQ]``, and the last of the k largest similarities ``[TQ]``."""
    best, argmax, least = found = _empty(problem)
    if 0 in (len(problem.queries), len(problem.documents)):
        return best.fill_(-torch.inf), argmax.zero_(), least.zero_()
    with on(problem.queries.device):
        for launch in launches(problem, k, *found, architecture(problem.queries.device)):
            launch.run()
    return found


def all_launches(problem: Problem, k: int, arch: Architecture) -> Iterator[Launch]:
    """Every kernel that a problem needs, for its first query tokens."""
    yield from islice(launches(problem, k, *_empty(problem), arch), 4)


@dataclass(frozen=True)
class Sizes:
    """How a selection is cut up.

    Args:
        cut: of the products.
        group: neighbouring document tokens whose maximum is kept.
        groups: how many there are; where documents differ in length, no document has some of them.
        kept: groups of a query token whose products are kept; 0 if a group is one product, and all are.
        rows: query tokens at a time.
    """

    cut: Tiles
    group: int
    groups: int
    kept: int
    rows: int


def sizes_of(problem: Problem, k: int, arch: Architecture) -> Sizes:
    """There are fewest maxima and members together if a group has about ``sqrt(TD / k)`` tokens."""
    TQ, TD, Ld = len(problem.queries), len(problem.documents), problem.max_document_length
    cut = tiles(arch, TQ, Ld, problem.dim, problem.queries.element_size())
    group = min(cut.block_n, 1 << (TD // min(k, TD)).bit_length() // 2)
    groups = problem.Nd * triton.cdiv(Ld, group) if _uniform(problem) else TD // group + problem.Nd
    kept = min(k, groups) if group > 1 else 0
    parts = triton.cdiv(TQ * 4 * (2 * groups + kept * group), BYTES)
    rows = triton.cdiv(triton.cdiv(TQ, max(1, parts)), cut.block_m) * cut.block_m
    return Sizes(cut, group, groups, kept, rows)


def launches(
    problem: Problem, k: int, best: Tensor, argmax: Tensor, least: Tensor, arch: Architecture
) -> Iterator[Launch]:
    """Those that write ``best``, ``argmax`` and ``least``, some query tokens at a time."""
    TQ, k = len(problem.queries), min(k, len(problem.documents))
    sizes = sizes_of(problem, k, arch)

    def empty(*shape: int, of: torch.dtype = torch.int32) -> Tensor:
        return torch.empty((min(TQ, sizes.rows), *shape), dtype=of, device=problem.queries.device)

    maxima = empty(_whole_words(sizes.groups), of=torch.float32)
    if not _uniform(problem):
        maxima.fill_(-torch.inf)  # no document has some of the groups
    slots = used = bounds = None
    products, width = maxima, sizes.groups
    if sizes.kept:
        width = sizes.kept * sizes.group
        products = empty(_whole_words(width), of=torch.float32)
        slots, used, bounds = empty(_whole_words(sizes.groups)), empty(), empty()
    present = None if problem.document_mask is None else problem.document_mask.sum()
    chosen = {"k": k, "present": present, "used": used, "bounds": bounds}
    choosing = {**chosen, "maxima": maxima, "slots": slots, "groups": sizes.groups}
    ending = {**chosen, "products": products, "least": least, "width": width}
    ending |= {"query_factors": problem.query_inverse_norms, "query_weights": problem.query_weights}
    for first in range(0, TQ, sizes.rows):
        rows = min(sizes.rows, TQ - first)
        yield _pass(problem, sizes, first, rows, arch, best=best, argmax=argmax, maxima=maxima)
        if sizes.kept:
            yield _of_rows(choose_groups, rows, sizes.groups, arch, choosing)
            yield _pass(problem, sizes, first, rows, arch, slots=slots, members=products)
        yield _of_rows(last_product, rows, width, arch, {**ending, "first_row": first}, GROUP=sizes.group)


def _pass(problem: Problem, sizes: Sizes, first: int, rows: int, arch: Architecture, **given: Tensor | None) -> Launch:
    """Over all products of some query tokens."""
    cut, Nd, Ld = sizes.cut, problem.Nd, problem.max_document_length
    blocks = triton.cdiv(rows, cut.block_m)
    programs = arch.multiprocessors * max(1, min(4, arch.shared // cut.shared))
    count = documents_each(blocks, Nd, triton.cdiv(Ld, cut.block_n), programs, MOST_DOCUMENTS)
    arguments = {
        "queries": problem.queries,
        "query_factors": problem.query_inverse_norms,
        "query_weights": problem.query_weights,
        "documents": problem.documents,
        "document_offsets": None if _uniform(problem) else problem.document_offsets,
        "token_factors": problem.document_factors,
        "token_mask": problem.document_mask,
        **dict.fromkeys(("best", "argmax", "maxima", "slots", "members")),
        **given,
        "first_row": first,
        "rows": rows,
        "TQ": len(problem.queries),
        "TD": len(problem.documents),
        "Nd": Nd,
        "Ld": Ld,
        "groups": sizes.groups,
        "kept": sizes.kept,
        "blocks": blocks,
        "count": count,
    }
    constants = {**token_constants(problem.dim, cut), "GROUP": sizes.group, "MOST": MOST_DOCUMENTS}
    return Launch(retrieve, blocks * triton.cdiv(Nd, count), arguments, constants, cut.warps, cut.stages, cut.registers)


def _of_rows(
    kernel: Any, rows: int, width: int, arch: Architecture, arguments: dict[str, Any], **constants: int
) -> Launch:
    """Over rows of so many numbers."""
    block = min(MOST_NUMBERS, max(16, int(triton.next_power_of_2(width))))
    constants |= {"ROWS": arch.selecting, "BLOCK": block, "WHOLE": width <= block}
    programs, warps = triton.cdiv(rows, arch.selecting), max(1, block // (32 * NUMBERS_EACH))
    return Launch(kernel, programs, {**arguments, "rows": rows}, constants, warps, 1)


def _empty(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Where maxima, their positions, and the last of the k largest similarities go."""
    TQ, new = len(problem.queries), problem.queries.new_empty
    best, least = new((TQ, problem.Nd), dtype=torch.float32), new(TQ, dtype=torch.float32)
    return best, new((problem.Nd, TQ), dtype=problem.argmax_dtype), least


def _uniform(problem: Problem) -> bool:
    """Whether all documents have one length."""
    return problem.Nd * problem.max_document_length == len(problem.documents)


def _whole_words(n: int) -> int:
    """How far apart rows of n numbers lie, as in `selection`."""
    return int(triton.cdiv(n, 16)) * 16
