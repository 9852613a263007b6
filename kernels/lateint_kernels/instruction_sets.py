"""Which instruction sets the compiled kernels know on this architecture, and which of them run on this machine."""

from lateint_kernels import _cpu

# Best first; each level includes those after it. On x86-64: amx, avx512bf16, avx512, avx2, scalar; on 64-bit ARM: i8mm,
# dotprod, neon, scalar.
INSTRUCTION_SETS = tuple(reversed(_cpu.isa_names()))


def why_not(isa: str) -> str | None:
    """Why an instruction set cannot be used on this machine; None if it can.

    >>> why_not("scalar") is None
    True
    """
    if isa not in INSTRUCTION_SETS:
        raise ValueError(f"isa must be one of {', '.join(INSTRUCTION_SETS)}, got {isa!r}")
    if INSTRUCTION_SETS.index(isa) >= INSTRUCTION_SETS.index(_cpu.best_isa()):
        return None
    return _cpu.isa_limit()
