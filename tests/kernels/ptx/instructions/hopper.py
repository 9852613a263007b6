"""What four warps of sm_90a do together: wgmma on matrices in shared memory, and giving registers away."""

import re

import numpy as np

from ptx.block import elements
from ptx.instructions.matrices import left_matrix
from ptx.instructions.step import NOT_YET, Step
from ptx.memory import Fault, check

SIZES = {"bf16": 2, "f16": 2, "s8": 1}
WIDTHS = {0: 16, 1: 128, 2: 64, 3: 32}  # of a swizzled row, by the descriptor's mode
SWIZZLES = {1: 7, 2: 3, 3: 1}
POISON = np.uint32(0x7FC0DEAD)  # a NaN, and an unlikely integer


def setmaxnreg(block, instruction):
    return Step(lambda i: None, "group")


def wgmma(block, instruction):
    if "fence" in instruction.parts:
        return Step(lambda i: None, "group")
    if "commit_group" in instruction.parts:
        return Step(lambda i: [_commit(block, group) for group in np.unique(i // 128)], "group")
    if "wait_group" in instruction.parts:
        keep = int(instruction.operands[0], 0)
        return Step(lambda i: _wait(block, np.unique(i // 128), keep), "group")
    return _multiply(block, instruction)


def _commit(block, group):
    block.product_groups.setdefault(group, []).append(block.products.pop(group, []))


def _wait(block, groups, keep):
    under_way = [block.product_groups.setdefault(group, []) for group in groups]
    if any(len(products) > keep for products in under_way) and block.random.random() < 0.7:
        return NOT_YET  # so that others come first, and shared memory that was given away early is overwritten
    for products in under_way:
        while len(products) > keep:
            for job in products.pop(0):
                job()
    return None


def _multiply(block, instruction):
    operands, parts = instruction.operands, [part for part in instruction.parts if part != "satfinite"]
    shape = next(part for part in parts if re.match(r"m64n\d+k\d+$", part))
    columns, depth = map(int, re.match(r"m64n(\d+)k(\d+)", shape).groups())
    of_sum, kind = parts[parts.index(shape) + 1 :][:2]
    if kind not in SIZES:
        raise NotImplementedError(str(instruction))
    in_registers = operands[1].startswith("{")
    rows = block.sources(operands[1], "u32") if in_registers else block.source(operands[1], "u64")
    described, added = block.source(operands[2], "u64"), block.source(operands[3], "pred")
    options = [int(text, 0) for text in operands[4:]] if SIZES[kind] == 2 else [1, 1, 0, 0]
    assert options[:2] == [1, 1], instruction
    transposed = (0, options[2]) if in_registers else options[2:4]
    registers = elements(operands[0])

    def start(i, group):
        threads = i[i // 128 == group]
        descriptors, keeps = set(described(threads).tolist()), set(added(threads).tolist())
        if len(descriptors) > 1 or len(keeps) > 1:
            raise Fault(f"{instruction}: threads do not agree")
        right_at, keep = descriptors.pop(), keeps.pop()
        left = left_matrix([word(threads) for word in rows], kind, 64, depth) if in_registers else None
        left_at = None if in_registers else int(rows(threads)[0])

        def read():
            right = from_descriptor(block, right_at, columns, depth, transposed[1], kind)
            given = from_descriptor(block, left_at, 64, depth, transposed[0], kind) if left is None else left
            return given, right

        issued = read() if block.late else None

        def job():
            given, right = read()
            if issued is not None and not all(map(np.array_equal, issued, (given, right), (True, True))):
                raise Fault(f"{instruction}: shared memory changed while the products were formed")
            _store(block, group, threads, registers, given @ right.T, keep, of_sum)

        if not block.late:
            job()
            return
        for name in registers:
            held = block.pending.setdefault((group, name), [block.registers[name][threads].copy(), 0])
            held[1] += 1
            block.registers[name][threads] = POISON
        block.products.setdefault(group, []).append(job)

    return Step(lambda i: [start(i, group) for group in np.unique(i // 128)], "group")


def _store(block, group, threads, registers, products, keep, of_sum):
    """Adds products to the accumulators; they are readable when no product with them is under way any more."""
    lane = threads % 32
    row, column = threads % 128 // 32 * 16 + lane // 4, lane % 4 * 2
    for number, name in enumerate(registers):
        found = products[row + number // 2 % 2 * 8, number // 4 * 8 + column + number % 2]
        held = block.pending.get((group, name))
        before = block.registers[name][threads] if held is None else held[0]
        if of_sum == "s32":
            total = (before.view(np.int32) if keep else 0) + found
            after = total.astype(np.int64).astype(np.int32).view(np.uint32)
        else:
            total = (before.view(np.float32).astype(np.float64) if keep else 0) + found
            after = total.astype(np.float32).view(np.uint32)
        if held is not None:
            held[:] = after, held[1] - 1
            if held[1]:
                continue
            del block.pending[group, name]
        block.registers[name][threads] = after


def from_descriptor(block, descriptor, rows, depth, transposed, kind):
    """``[rows, depth]`` of a matrix in shared memory; rows are those of the left matrix, or columns of the right."""
    if descriptor >> 49 & 7:
        raise NotImplementedError("a base offset")
    size, mode = SIZES[kind], descriptor >> 62
    start, leading, stride = ((descriptor >> shift & 0x3FFF) << 4 for shift in (0, 16, 32))
    width = WIDTHS[mode]
    row, k = np.arange(rows)[:, None], np.arange(depth)[None, :]
    if not transposed:
        byte = k * size
        inside = byte // 16 * leading + byte % 16 if mode == 0 else byte
        if mode and depth * size > width:
            raise NotImplementedError("rows longer than the swizzle")
        at = start + row // 8 * stride + row % 8 * width + inside
    elif mode:
        byte = row * size
        at = start + byte // width * leading + byte % width + k // 8 * stride + k % 8 * width
    else:
        raise NotImplementedError("transposed without swizzle")
    if mode:
        at = at ^ (at >> 7 & SWIZZLES[mode]) << 4
    check("wgmma from shared memory", at.reshape(-1), size, block.shared_valid)
    if kind == "s8":
        return block.shared.view(np.int8)[at].astype(np.float64)
    bits = block.shared.view(np.uint16)[at // 2]
    if kind == "f16":
        return bits.view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


TABLE = {"setmaxnreg": setmaxnreg, "wgmma": wgmma}
