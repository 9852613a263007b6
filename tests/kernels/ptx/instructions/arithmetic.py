"""Numbers: sums, products, comparisons and conversions."""

import operator

import numpy as np

from ptx.values import TYPES, size_of, to_bf16

WIDER = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}
ROUNDINGS = {"rni": np.rint, "rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc}


def _two(block, instruction, function, kind=None):
    kind = kind or instruction.types[0]
    target = block.target(instruction.operands[0])
    a, b = (block.source(text, kind) for text in instruction.operands[1:3])
    return lambda i: target(i, function(a(i), b(i)))


def _one(function):
    def make(block, instruction):
        kind = instruction.types[0]
        target, a = block.target(instruction.operands[0]), block.source(instruction.operands[1], kind)
        return lambda i: target(i, function(a(i)).astype(TYPES[kind]))

    return make


def add(block, instruction):
    if "ftz" in instruction.parts:
        raise NotImplementedError(str(instruction))
    return _two(block, instruction, operator.add)


def sub(block, instruction):
    return _two(block, instruction, operator.sub)


def mul(block, instruction):
    kind = instruction.types[0]
    if "wide" in instruction.parts:
        wide = TYPES[WIDER[kind]]
        return _two(block, instruction, lambda a, b: a.astype(wide) * b.astype(wide))
    if "hi" not in instruction.parts:
        return _two(block, instruction, operator.mul)
    if kind in WIDER:
        wide, bits = TYPES[WIDER[kind]], 8 * size_of(kind)
        return _two(block, instruction, lambda a, b: (a.astype(wide) * b.astype(wide) >> bits).astype(TYPES[kind]))

    def high(a, b):
        words = [int(x) * int(y) >> 64 & (2**64 - 1) for x, y in zip(a, b, strict=True)]
        return np.array(words, np.uint64).view(TYPES[kind])

    return _two(block, instruction, high)


def mad(block, instruction):
    kind = instruction.types[0]
    wide = "wide" in instruction.parts
    assert wide or "lo" in instruction.parts, instruction
    of_sum = WIDER[kind] if wide else kind
    target = block.target(instruction.operands[0])
    a, b = (block.source(text, kind) for text in instruction.operands[1:3])
    c = block.source(instruction.operands[3], of_sum)
    return lambda i: target(i, a(i).astype(TYPES[of_sum]) * b(i).astype(TYPES[of_sum]) + c(i))


def fma(block, instruction):
    """Rounded once; of float32 by way of float64, where a sum halfway between two numbers may be rounded twice."""
    kind = instruction.types[0]
    wide = np.longdouble if kind == "f64" else np.float64
    target = block.target(instruction.operands[0])
    a, b, c = (block.source(text, kind) for text in instruction.operands[1:4])
    return lambda i: target(i, (a(i).astype(wide) * b(i).astype(wide) + c(i)).astype(TYPES[kind]))


def div(block, instruction):
    if instruction.types[0][0] == "f":
        return _two(block, instruction, operator.truediv)

    def quotient(a, b):
        found = np.abs(a.astype(object)) // np.abs(np.where(b == 0, 1, b).astype(object))
        return (found * np.where((a < 0) != (b < 0), -1, 1)).astype(a.dtype)

    return _two(block, instruction, quotient)


def rem(block, instruction):
    def rest(a, b):
        found = np.abs(a.astype(object)) % np.abs(np.where(b == 0, 1, b).astype(object))
        return np.where(a < 0, -found, found).astype(a.dtype)

    return _two(block, instruction, rest)


def _extreme(of_numbers, of_floats):
    def make(block, instruction):
        kind = instruction.types[0]
        if len(instruction.operands) > 3:
            raise NotImplementedError(str(instruction))
        if kind[0] == "f" and "NaN" not in instruction.parts:
            return _two(block, instruction, of_floats)
        if "relu" in instruction.parts:
            return _two(block, instruction, lambda a, b: np.maximum(of_numbers(a, b), 0))
        return _two(block, instruction, of_numbers)

    return make


def setp(block, instruction):
    kind, operands = instruction.types[0], instruction.operands
    targets = [block.target(name) for name in operands[0].split("|")]
    a, b = (block.source(text, kind) for text in operands[1:3])
    compare = COMPARISONS[instruction.parts[1]]
    joined = next((JOINS[part] for part in instruction.parts[2:] if part in JOINS), None)
    other = block.source(operands[3], "pred") if joined else None

    def run(i):
        x, y = a(i), b(i)
        unknown = np.isnan(x) | np.isnan(y) if kind[0] == "f" else np.zeros(len(i), np.bool_)
        found = compare(x, y, unknown)
        for target, value in zip(targets, (found, ~found), strict=False):
            target(i, joined(value, other(i)) if joined else value)

    return run


JOINS = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
COMPARISONS = {
    "eq": lambda x, y, unknown: x == y,
    "ne": lambda x, y, unknown: (x != y) & ~unknown,
    "lt": lambda x, y, unknown: x < y,
    "le": lambda x, y, unknown: x <= y,
    "gt": lambda x, y, unknown: x > y,
    "ge": lambda x, y, unknown: x >= y,
    "lo": lambda x, y, unknown: x < y,
    "ls": lambda x, y, unknown: x <= y,
    "hi": lambda x, y, unknown: x > y,
    "hs": lambda x, y, unknown: x >= y,
    "equ": lambda x, y, unknown: (x == y) | unknown,
    "neu": lambda x, y, unknown: (x != y) | unknown,
    "ltu": lambda x, y, unknown: (x < y) | unknown,
    "leu": lambda x, y, unknown: (x <= y) | unknown,
    "gtu": lambda x, y, unknown: (x > y) | unknown,
    "geu": lambda x, y, unknown: (x >= y) | unknown,
    "num": lambda x, y, unknown: ~unknown,
    "nan": lambda x, y, unknown: unknown,
}


def selp(block, instruction):
    kind = instruction.types[0]
    target = block.target(instruction.operands[0])
    a, b = (block.source(text, kind) for text in instruction.operands[1:3])
    chosen = block.source(instruction.operands[3], "pred")
    return lambda i: target(i, np.where(chosen(i), a(i), b(i)).astype(TYPES[kind]))


def cvt(block, instruction):
    parts, operands = instruction.parts, instruction.operands
    target = block.target(operands[0])
    if "bf16x2" in parts or "f16x2" in parts:
        high, low = (block.source(text, "f32") for text in operands[1:3])
        narrow = to_bf16 if "bf16x2" in parts else lambda x: x.astype(np.float16).view(np.uint16)
        return lambda i: target(i, narrow(high(i)).astype(np.uint32) << np.uint32(16) | narrow(low(i)))
    if parts[-1] == "bf16":
        bits = block.source(operands[1], "u16")
        return lambda i: target(i, (bits(i).astype(np.uint32) << np.uint32(16)).view(np.float32))
    if "bf16" in parts:
        number = block.source(operands[1], "f32")
        return lambda i: target(i, to_bf16(number(i)))
    to, given = instruction.types[:2]
    number = block.source(operands[1], given)
    rounding = next((ROUNDINGS[part] for part in parts if part in ROUNDINGS), None)
    saturating = "sat" in parts
    return lambda i: target(i, _converted(number(i), to, given, rounding, saturating))


def _converted(x, to, given, rounding, saturating):
    if given[0] == "f" and to[0] == "f":
        return (rounding(x) if rounding and to == given else x).astype(TYPES[to])
    if given[0] == "f":
        limits = np.iinfo(TYPES[to])
        whole = rounding(x.astype(np.float64))
        whole = np.where(np.isnan(whole), 0, whole)
        inside = np.clip(whole, float(limits.min), np.nextafter(float(limits.max) + 1, 0)).astype(TYPES[to])
        return np.where(whole > limits.max, limits.max, inside).astype(TYPES[to])
    if saturating:
        limits = np.iinfo(TYPES[to])
        return np.clip(x.astype(object), limits.min, limits.max).astype(TYPES[to])
    return x.astype(TYPES[to])


TABLE = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "mad": mad,
    "fma": fma,
    "div": div,
    "rem": rem,
    "min": _extreme(np.minimum, np.fmin),
    "max": _extreme(np.maximum, np.fmax),
    "abs": _one(np.abs),
    "neg": _one(operator.neg),
    "sqrt": _one(np.sqrt),
    "rcp": _one(lambda x: 1 / x),
    "ex2": _one(np.exp2),
    "lg2": _one(np.log2),
    "setp": setp,
    "selp": selp,
    "cvt": cvt,
}
