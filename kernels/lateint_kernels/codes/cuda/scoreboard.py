"""Coarse scores in shared memory: what `lateint_kernels.codes.torch.scoreboard` has, by the kernel scoreboard.cu.

Sizes are known beforehand, so nothing waits for the device. A query has room for more keys than are wanted, and the
kernel is launched several times over: first to count keys by their leading bits, then to write those that fit. As soon
as a query's keys fit, its blocks do nothing in the launches between.
"""

import ctypes
from ctypes import c_int, c_void_p

import torch
from torch import Tensor

from lateint_kernels.codes.index_tensors import IndexTensors, QueryTensors
from lateint_kernels.codes.torch import scoreboard as sorting
from lateint_kernels.gpu import program
from lateint_kernels.gpu.arguments import pointer
from lateint_kernels.gpu.support import why_not

__all__ = ["best_keys", "why_not"]

THREADS = 256
BLOCKS_PER_MULTIPROCESSOR = 4
RESERVED = 1024  # bytes of shared memory the system takes from every block
HEADER, SLOT = 24, 12  # bytes of shared memory: of a block, and of a document
BINS, PASSES = 2048, 6  # of scoreboard.cuh: a histogram, and launches that count until every key is told apart
ROOM = 4  # keys of a query for each one wanted
LEAST_ROOM = 4096
MOST_LISTS = (1 << 32) - 1  # of a query, not counting segments: the kernel numbers them
BYTES = 1 << 28  # of keys and histograms at a time


class Scoreboard(ctypes.Structure):
    """csrc/cuda/scoreboard.cuh, byte for byte."""

    _fields_ = (
        ("list_offsets", c_void_p),
        ("list_documents", c_void_p),
        ("ids", c_void_p),
        ("gains", c_void_p),
        ("query_offsets", c_void_p),
        ("ranges", c_void_p),
        ("allowed", c_void_p),
        ("histograms", c_void_p),
        ("least", c_void_p),
        ("above", c_void_p),
        ("kept", c_void_p),
        ("keys", c_void_p),
        ("touched", c_void_p),
        ("documents", c_int),
        ("lists", c_int),
        ("segments", c_int),
        ("query_count", c_int),
        ("probed", c_int),
        ("used", c_int),
        ("candidates", c_int),
        ("capacity", c_int),
        ("slots", c_int),
        ("passes", c_int),
        ("pass", c_int),
    )


def best_keys(
    index: IndexTensors, queries: QueryTensors, ids: Tensor, gains: Tensor, candidates: int, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `lateint_kernels.codes.torch.scoreboard.best_keys`; C is the smaller of ``candidates`` and the documents."""
    if queries.longest * ids.shape[1] > MOST_LISTS:
        return sorting.best_keys(index, queries, ids, gains, candidates, allowed)
    wanted = min(candidates, index.documents)
    capacity = min(max(ROOM * wanted, LEAST_ROOM), index.documents)
    touched = torch.zeros((), dtype=torch.int64, device=ids.device)
    ids, gains = ids if ids.stride(1) == 1 else ids.contiguous(), gains.to(torch.int32).contiguous()
    sizes = (index.list_offsets[:, ids + 1] - index.list_offsets[:, ids]).sum((0, 2))
    entries = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))[queries.offsets].diff()  # [Nq]
    together = max(1, min(65535, BYTES // (8 * capacity + 4 * BINS * PASSES)))
    arguments = Scoreboard(
        list_offsets=pointer(index.list_offsets),
        list_documents=pointer(index.list_documents),
        ids=pointer(ids),
        gains=pointer(gains),
        allowed=pointer(allowed),
        touched=pointer(touched),
        documents=index.documents,
        lists=index.list_offsets.shape[1] - 1,
        segments=len(index.list_offsets),
        probed=ids.stride(0),
        used=ids.shape[1],
        candidates=wanted,
        capacity=capacity,
    )
    found = [
        _best(arguments, queries.offsets[first:], entries[first : first + together]).topk(wanted, dim=1).values
        for first in range(0, len(entries), together)
    ]
    return torch.cat(found), entries.sum(), touched


def _best(arguments: Scoreboard, offsets: Tensor, entries: Tensor) -> Tensor:
    """``[Nq, capacity]``: keys of queries, the best among them, in any order and with -1 for none."""
    Nq, device = len(entries), entries.device
    passes = PASSES if arguments.capacity < arguments.documents else 0  # nothing to leave out
    gpu = program.gpu(entries.get_device())
    keys = torch.full((Nq, arguments.capacity), -1, dtype=torch.int64, device=device)
    kept = torch.zeros(Nq, dtype=torch.int32, device=device)
    histograms = torch.zeros((passes, Nq, BINS), dtype=torch.int32, device=device)
    least = torch.empty((passes, Nq), dtype=torch.int64, device=device)
    above = torch.empty((passes, Nq), dtype=torch.int32, device=device)
    blocks = max(1, min(arguments.documents, -(-gpu.multiprocessors * BLOCKS_PER_MULTIPROCESSOR // Nq)))
    arguments.slots = slots_of(gpu)
    ranges = _ranges(entries, arguments.documents, arguments.slots, -(-arguments.documents // blocks))
    arguments.keys, arguments.kept, arguments.ranges = pointer(keys), pointer(kept), pointer(ranges)
    arguments.histograms, arguments.least, arguments.above = pointer(histograms), pointer(least), pointer(above)
    arguments.query_offsets, arguments.query_count, arguments.passes = pointer(offsets), Nq, passes
    kernel = program.load("scoreboard", (), entries.get_device())
    for number in range(passes + 1):
        setattr(arguments, "pass", number)
        kernel.launch((blocks, Nq, 1), THREADS, HEADER + SLOT * arguments.slots, arguments)
    return keys


def _ranges(entries: Tensor, documents: int, slots: int, share: int) -> Tensor:
    """Documents of a range: their entries fill half a table if they are spread evenly, and every block has a share."""
    fitting = torch.full_like(entries, documents * (slots // 2)) // entries.clamp(min=1)
    return fitting.clamp(min=slots).clamp(max=share)


def slots_of(gpu: program.Gpu) -> int:
    """Documents in the table of a block, so that several blocks run side by side."""
    room = min(gpu.shared_per_multiprocessor // BLOCKS_PER_MULTIPROCESSOR - RESERVED, gpu.shared_per_block)
    return (room - HEADER) // SLOT
