"""Matrices of a warp: ldmatrix, stmatrix and mma."""

import numpy as np

from ptx.instructions.step import whole_warp
from ptx.memory import Fault
from ptx.values import halves, signed_bytes

READ = {
    "bf16": lambda words: halves(words, "bf16"),
    "f16": lambda words: halves(words, "f16"),
    "s8": signed_bytes,
    "u8": lambda words: np.ascontiguousarray(words).view(np.uint8).reshape(-1, 4).astype(np.float64),
}
ROW, PAIR = np.arange(32) // 4, np.arange(32) % 4  # of each lane, in a matrix of 8 rows


def warps_of(i):
    """Threads ``[warps, 32]``, which whole warps are."""
    if len(i) % 32 or (i.reshape(-1, 32)[:, 0] % 32).any():
        raise Fault("a part of a warp where all of it is needed")
    return i.reshape(-1, 32)


def _rows(addresses, number):
    """Where the 16 bytes of each of 8 rows of matrix ``number`` are: ``[warps, 8, 8]``."""
    rows = addresses.reshape(-1, 32)[:, 8 * number : 8 * number + 8]
    if (rows % 16).any():
        raise Fault("a row of a matrix that is not aligned by 16")
    return rows[:, :, None] + 2 * np.arange(8)


def ldmatrix(block, instruction):
    targets, address = block.targets(instruction.operands[0]), block.address(instruction.operands[1])
    transposed, what = "trans" in instruction.parts, str(instruction)

    def run(i):
        warps_of(i)
        rows = address(i).astype(np.int64)
        for number, target in enumerate(targets):
            at = _rows(rows, number)
            found = block.load("shared", at.reshape(-1).astype(np.uint64), np.uint16, what).reshape(at.shape)
            found = found.transpose(0, 2, 1) if transposed else found
            target(i, np.ascontiguousarray(found).view(np.uint32).reshape(-1))

    return whole_warp(run)


def stmatrix(block, instruction):
    address, sources = block.address(instruction.operands[0]), block.sources(instruction.operands[1], "u32")
    transposed, what = "trans" in instruction.parts, str(instruction)

    def run(i):
        warps_of(i)
        rows = address(i).astype(np.int64)
        for number, source in enumerate(sources):
            values = np.ascontiguousarray(source(i)).view(np.uint16).reshape(-1, 8, 8)
            values = values.transpose(0, 2, 1) if transposed else values
            at = _rows(rows, number).reshape(-1).astype(np.uint64)
            block.store("shared", at, np.ascontiguousarray(values).reshape(-1), what)

    return whole_warp(run)


def left_matrix(words, kind, rows, depth):
    """Four registers of each thread as a matrix ``[.., rows, depth]``; each thread has one row and the 8th below it."""
    per = 2 if kind in ("bf16", "f16") else 4
    found = np.zeros((*words[0].shape[:-1], rows, depth))
    threads = np.arange(words[0].shape[-1])
    row, first = threads // 32 * 16 + threads % 32 // 4, threads % 4 * per
    for register, word in enumerate(words):
        values = (halves if per == 2 else lambda x, _: signed_bytes(x))(word, kind).reshape(*word.shape, per)
        for n in range(per):
            found[..., row + register % 2 * 8, first + n + register // 2 * 4 * per] = values[..., n]
    return found


def mma(block, instruction):
    """``[16, k] [k, 8]`` with products of each warp exact, and sums of float32 rounded once."""
    # None of our sums saturates: they stay far below 2^31.
    shape, _, _, _, kind, of_right = [part for part in instruction.parts if part != "satfinite"][3:9]
    integer = "s32" in instruction.parts
    per = {"bf16": 2, "f16": 2, "s8": 4}.get(kind)
    read = READ.get(of_right)
    if per is None or read is None or shape != f"m16n8k{8 * per}":
        raise NotImplementedError(str(instruction))
    targets = block.targets(instruction.operands[0])
    a, b = (block.sources(text, "u32") for text in instruction.operands[1:3])
    sums = block.sources(instruction.operands[3], "s32" if integer else "f32")

    def run(i):
        count = len(warps_of(i))
        left = left_matrix([word(i).reshape(count, 32) for word in a], kind, 16, 8 * per)
        right = np.zeros((count, 8 * per, 8))
        for register, word in enumerate(b):
            values = read(word(i)).reshape(count, 32, per)
            for n in range(per):
                right[:, PAIR * per + n + 4 * per * register, ROW] = values[..., n]
        found = left @ right
        for register, (target, total) in enumerate(zip(targets, sums, strict=True)):
            part = found[:, ROW + register // 2 * 8, PAIR * 2 + register % 2].reshape(-1)
            value = total(i).astype(np.float64) + part
            target(i, value.astype(np.int64).astype(np.int32) if integer else value.astype(np.float32))

    return whole_warp(run)


TABLE = {"ldmatrix": ldmatrix, "stmatrix": stmatrix, "mma": mma}
