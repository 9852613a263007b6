import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lateint_kernels import _cpu, explain
from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_best_is_active_at_import():
    done = run("from lateint_kernels import _cpu; print(_cpu.active_isa())", LATEINT_ISA="")
    # An Intel CPU whose best is avx512bf16 is faster without it.
    assert done.stdout.strip() in {_cpu.best_isa(), _cpu.best_isa().removesuffix("bf16")}


def test_environment_chooses(isa):
    done = run("from lateint_kernels import _cpu; print(_cpu.active_isa())", LATEINT_ISA=isa)
    assert done.stdout.strip() == isa


def test_unknown_level_fails_the_import():
    done = run("import lateint_kernels", LATEINT_ISA="mmx")
    known = ", ".join(reversed(INSTRUCTION_SETS))
    assert f"LATEINT_ISA: unknown instruction set 'mmx'; known here: {known}" in done.stderr


def test_set_active_isa_refuses_unknown_names():
    with pytest.raises(ValueError, match="unknown instruction set 'sse9'"):
        _cpu.set_active_isa("sse9")


def test_levels_above_the_best_are_refused():
    above = INSTRUCTION_SETS[: INSTRUCTION_SETS.index(_cpu.best_isa())]
    assert (_cpu.isa_limit() == "") == (not above)
    for isa in above:
        assert why_not(isa) == _cpu.isa_limit()
        with pytest.raises(ValueError, match=f"instruction set {isa} cannot run here"):
            _cpu.set_active_isa(isa)
        assert f"instruction set {isa} cannot run here" in run("import lateint_kernels", LATEINT_ISA=isa).stderr


def test_explain_names_the_active_one(isa):
    report = explain()
    assert report[isa] == "in use"
    assert list(report)[: len(INSTRUCTION_SETS) + 1] == [*INSTRUCTION_SETS, "threads"]
    assert int(report["threads"]) == _cpu.default_threads()


def test_why_not_refuses_unknown_names():
    with pytest.raises(ValueError, match=f"isa must be one of {', '.join(INSTRUCTION_SETS)}, got 'mmx'"):
        why_not("mmx")


CSRC = Path(__file__).parents[2] / "csrc"
# Whatever else they include may leave a function that other files have too, compiled for processors that have the
# instruction set: the linker keeps one of them, which all files then call.
HARMLESS = {"algorithm", "arm_neon.h", "cmath", "cstddef", "cstdint", "cstring", "immintrin.h", "memory"}


def included(source: Path) -> set[str]:
    """Headers of others that a file includes, by way of ours too."""
    found = set()
    for kind, name in re.findall(r'#include ([<"])([^>"]+)', source.read_text()):
        found |= {name} if kind == "<" else included(CSRC / name)
    return found


def test_sources_of_instruction_sets_share_no_functions():
    suffixes = ("scalar", "avx2", "avx512", "avx512bf16", "amx", "neon", "dotprod", "i8mm")
    sources = [source for source in CSRC.rglob("*.cpp") if source.stem.endswith(tuple(f"_{one}" for one in suffixes))]
    assert len(sources) > 20
    assert {source.name: extra for source in sources if (extra := included(source) - HARMLESS)} == {}
