"""Instruction sets: their times and their bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.design.sample import Coded, Row, Sample, engine_of, timed
from lateint.indexing import clustering
from lateint_kernels import _cpu
from lateint_kernels.codes import residual
from lateint_kernels.codes.building import HostOperators
from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not


def tiers(sample: Sample, coded: Coded) -> list[Row]:
    """Nanoseconds a token on one core, instruction set by instruction set, and whether the bits are the same."""
    query = sample.query_tokens[:32]
    documents = np.arange(64)
    tokens = int(sample.offsets[len(documents)])
    engines = {nbits: engine_of(coded, nbits) for nbits in residual.NBITS}
    nearest = clustering.assigner(coded.centroids, HostOperators(1), clustering.CELLS_SEARCHED)
    part = coded.rows[:tokens]
    expected: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    before = _cpu.active_isa()
    for isa in reversed(INSTRUCTION_SETS):
        if why_not(isa) is not None or isa == "avx512bf16":  # its integer kernels are those of avx512
            continue
        _cpu.set_active_isa(isa)
        work: dict[str, Callable[[], np.ndarray]] = {
            f"score_{nbits}_bits": partial(engine.score, query, documents, threads=1)
            for nbits, engine in engines.items()
        }
        work["assign"] = partial(nearest, part)
        row: Row = {"isa": isa, "same_bits": True}
        for name, run in work.items():
            result = run()
            row["same_bits"] &= bool(np.array_equal(result, expected.setdefault(name, result)))
            row[f"{name}_ns"] = min(timed(run) for _ in range(3 if isa == "scalar" else 25)) / tokens * 1e9
        rows.append(row)
    _cpu.set_active_isa(before)
    return rows
