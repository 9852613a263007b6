"""Bits of words: logic, shifts, fields and permutations of bytes."""

import operator

import numpy as np

from ptx.values import size_of


def _logic(function):
    def make(block, instruction):
        kind = instruction.types[0]
        target = block.target(instruction.operands[0])
        given = [block.source(text, kind) for text in instruction.operands[1:]]
        return lambda i: target(i, function(*(source(i) for source in given)))

    return make


def lop3(block, instruction):
    target = block.target(instruction.operands[0])
    a, b, c = (block.source(text, "u32") for text in instruction.operands[1:4])
    table = int(instruction.operands[4], 0)

    def run(i):
        x, y, z = a(i), b(i), c(i)
        found = np.zeros_like(x)
        for case in range(8):
            if table >> case & 1:
                found |= (x if case & 4 else ~x) & (y if case & 2 else ~y) & (z if case & 1 else ~z)
        target(i, found)

    return run


def _shift(left):
    """By the number of bits at most, after which zeros are left, or the sign."""

    def make(block, instruction):
        kind = instruction.types[0]
        bits = 8 * size_of(kind)
        target, a = block.target(instruction.operands[0]), block.source(instruction.operands[1], kind)
        by = block.source(instruction.operands[2], "u32")

        def run(i):
            x, count = a(i), by(i)
            most = np.minimum(count, bits - 1).astype(x.dtype)
            shifted = x << most if left else x >> most
            signed = kind[0] == "s" and not left
            target(i, shifted if signed else np.where(count >= bits, 0, shifted).astype(x.dtype))

        return run

    return make


def shf(block, instruction):
    target = block.target(instruction.operands[0])
    a, b, c = (block.source(text, "u32") for text in instruction.operands[1:4])
    left, wrap = "l" in instruction.parts, "wrap" in instruction.parts

    def run(i):
        word = b(i).astype(np.uint64) << np.uint64(32) | a(i).astype(np.uint64)
        by = (c(i) & np.uint32(31) if wrap else np.minimum(c(i), 32)).astype(np.uint64)
        target(i, (word << by >> np.uint64(32) if left else word >> by).astype(np.uint32))

    return run


def _field(i, position, count):
    """The same for all threads, as in all that compilers make."""
    first, width = position(i), count(i)
    assert (first == first[0]).all() and (width == width[0]).all()
    return int(first[0]) & 0xFF, int(width[0]) & 0xFF


def bfi(block, instruction):
    kind = instruction.types[0]
    target = block.target(instruction.operands[0])
    a, b = (block.source(text, kind) for text in instruction.operands[1:3])
    position, count = (block.source(text, "u32") for text in instruction.operands[3:5])

    def run(i):
        first, width = _field(i, position, count)
        x, y = a(i), b(i)
        whole = (1 << 8 * x.dtype.itemsize) - 1
        mask = ((1 << width) - 1) << first & whole
        number = x.dtype.type
        target(i, y & number(~mask & whole) | x << number(first) & number(mask))

    return run


def bfe(block, instruction):
    kind = instruction.types[0]
    target, a = block.target(instruction.operands[0]), block.source(instruction.operands[1], kind)
    position, count = (block.source(text, "u32") for text in instruction.operands[2:4])

    def run(i):
        first, width = _field(i, position, count)
        x = a(i).astype(np.int64) >> first & (1 << width) - 1
        if kind[0] == "s":
            x = np.where(x >> (width - 1) & 1, x - (1 << width), x)
        target(i, x.astype(a(i).dtype))

    return run


def prmt(block, instruction):
    assert instruction.parts[-1] == "b32", instruction
    target = block.target(instruction.operands[0])
    a, b, c = (block.source(text, "u32") for text in instruction.operands[1:4])

    def run(i):
        eight = np.stack([a(i), b(i)], 1).view(np.uint8)
        select = c(i)[:, None] >> np.arange(0, 16, 4, dtype=np.uint32) & np.uint32(15)
        found = np.take_along_axis(eight, (select & 7).astype(np.int64), 1)
        signs = np.where(found & 0x80, 0xFF, 0)
        target(i, np.where(select & 8, signs, found).astype(np.uint8).view(np.uint32)[:, 0])

    return run


def popc(block, instruction):
    target, a = block.target(instruction.operands[0]), block.source(instruction.operands[1], instruction.types[0])
    return lambda i: target(i, np.array([int(x).bit_count() for x in a(i)], np.uint32))


def clz(block, instruction):
    kind = instruction.types[0]
    bits = 8 * size_of(kind)
    target, a = block.target(instruction.operands[0]), block.source(instruction.operands[1], kind)
    return lambda i: target(i, np.array([bits - int(x).bit_length() for x in a(i)], np.uint32))


def dp4a(block, instruction):
    """Four products of bytes, added to a sum."""
    kinds = [np.int8 if kind == "s32" else np.uint8 for kind in instruction.types[:2]]
    target = block.target(instruction.operands[0])
    a, b, c = (block.source(text, "u32") for text in instruction.operands[1:4])

    def run(i):
        left, right = (
            source(i).copy().view(kind).reshape(-1, 4).astype(np.int64)
            for source, kind in zip((a, b), kinds, strict=True)
        )
        target(i, ((left * right).sum(1) + c(i).view(np.int32)).astype(np.int32))

    return run


TABLE = {
    "and": _logic(operator.and_),
    "or": _logic(operator.or_),
    "xor": _logic(operator.xor),
    "not": _logic(operator.invert),
    "lop3": lop3,
    "shl": _shift(True),
    "shr": _shift(False),
    "shf": shf,
    "bfi": bfi,
    "bfe": bfe,
    "prmt": prmt,
    "popc": popc,
    "clz": clz,
    "dp4a": dp4a,
}
