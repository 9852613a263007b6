"""Moves between registers and memory, atomics, and control flow."""

import numpy as np

from ptx.block import elements
from ptx.instructions.step import Step
from ptx.memory import SHARED, Fault
from ptx.values import TYPES, UNSIGNED, size_of

VECTORS = {"v2": 2, "v4": 4, "v8": 8}


def mov(block, instruction):
    kind, (to, given) = instruction.types[0], instruction.operands
    if to.startswith("{"):
        targets, source = block.targets(to), block.source(given, kind)
        part = UNSIGNED[size_of(kind) // len(targets)]

        def unpack(i):
            parts = np.ascontiguousarray(source(i)).view(part).reshape(-1, len(targets))
            for number, target in enumerate(targets):
                target(i, parts[:, number].copy())

        return unpack
    target = block.target(to)
    if given.startswith("{"):
        size = size_of(kind) // len(elements(given))
        sources = block.sources(given, f"u{8 * size}")
        whole = UNSIGNED[size_of(kind)]
        return lambda i: target(i, np.stack([source(i) for source in sources], 1).view(whole)[:, 0])
    source = block.source(given, kind)
    return lambda i: target(i, source(i))


def cvta(block, instruction):
    target, source = block.target(instruction.operands[0]), block.source(instruction.operands[1], "u64")
    if "shared" not in instruction.parts:
        return lambda i: target(i, source(i))
    if "to" in instruction.parts:
        return lambda i: target(i, source(i) - np.uint64(SHARED))
    return lambda i: target(i, source(i) + np.uint64(SHARED))


def space_of(instruction):
    """The state space that it names."""
    spaces = (part.split("::")[0] for part in instruction.parts)
    return next((space for space in spaces if space in ("global", "shared", "param", "local")), "generic")


def _vector(instruction):
    return next((VECTORS[part] for part in instruction.parts if part in VECTORS), 1)


def _check_vector(instruction, address, size):
    if (address.astype(np.int64) % size).any():
        raise Fault(f"{instruction}: misaligned")


def ld(block, instruction):
    space, kind = space_of(instruction), instruction.types[-1]
    targets, address = block.targets(instruction.operands[0]), block.address(instruction.operands[1])
    size, what = size_of(kind), str(instruction)
    whole = _vector(instruction) * size

    def run(i):
        first = address(i)
        if space != "param":
            _check_vector(instruction, first, whole)
        found = [block.load(space, first + np.uint64(n * size), TYPES[kind], what, i) for n in range(len(targets))]
        for target, values in zip(targets, found, strict=True):
            target(i, values)

    return run


def st(block, instruction):
    space, kind = space_of(instruction), instruction.types[-1]
    address, sources = block.address(instruction.operands[0]), block.sources(instruction.operands[1], kind)
    size, what = size_of(kind), str(instruction)

    def run(i):
        first = address(i)
        _check_vector(instruction, first, len(sources) * size)
        for n, source in enumerate(sources):
            block.store(space, first + np.uint64(n * size), source(i), what, i)

    return run


ATOMICS = {
    "add": lambda old, new, other: old + new,
    "max": lambda old, new, other: np.maximum(old, new),
    "min": lambda old, new, other: np.minimum(old, new),
    "exch": lambda old, new, other: new,
    "or": lambda old, new, other: old | new,
    "and": lambda old, new, other: old & new,
    "cas": lambda old, new, other: np.where(old == new, other, old),
}


def atom(block, instruction, operands=None):
    """Threads of one address in a random order."""
    space, kind = space_of(instruction), instruction.types[-1]
    name = next((part for part in instruction.parts if part in ATOMICS), None)
    if name is None:
        raise NotImplementedError(str(instruction))
    operands = operands or instruction.operands
    target, address, new = block.target(operands[0]), block.address(operands[1]), block.source(operands[2], kind)
    other = block.source(operands[3], kind) if name == "cas" else new
    dtype, what, change = np.dtype(TYPES[kind]), str(instruction), ATOMICS[name]

    def run(i):
        at, a, b = address(i), new(i), other(i)
        old = np.zeros(len(i), dtype)
        left = np.array(block.random.sample(range(len(i)), len(i)))
        while len(left):  # all those whose address nobody before them has
            _, first = np.unique(at[left], return_index=True)
            now = left[first]
            old[now] = block.load(space, at[now], dtype, what, i[now])
            block.store(space, at[now], change(old[now], a[now], b[now]).astype(dtype), what, i[now])
            left = np.delete(left, first)
        target(i, old)

    return run


def red(block, instruction):
    return atom(block, instruction, ("_", *instruction.operands))


def bra(block, instruction):
    return Step(None, "jump", block.program.labels[instruction.operands[0]])


def ret(block, instruction):
    return Step(None, "exit")


def nothing(block, instruction):
    """Fences: every store is seen at once here."""
    return lambda i: None


TABLE = {
    "mov": mov,
    "cvta": cvta,
    "ld": ld,
    "ldu": ld,
    "st": st,
    "atom": atom,
    "red": red,
    "bra": bra,
    "ret": ret,
    "exit": ret,
    "fence": nothing,
    "membar": nothing,
}
