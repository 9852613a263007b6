"""What the lanes of a warp do together, and barriers of the block."""

import numpy as np

from ptx.instructions.step import Step
from ptx.memory import Fault
from ptx.values import TYPES

REDUCTIONS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "or": np.bitwise_or,
    "and": np.bitwise_and,
    "xor": np.bitwise_xor,
}


def shfl(block, instruction):
    mode, names = instruction.parts[2], instruction.operands[0].split("|")
    target = block.target(names[0])
    inside = block.target(names[1]) if len(names) > 1 else None
    given, by, clamp, mask = (block.source(text, "u32") for text in instruction.operands[1:5])

    def run(i):
        lane = i % 32
        offset, bounds = by(i).astype(np.int64) & 31, clamp(i).astype(np.int64)
        segment, last = bounds >> 8 & 31, bounds & 31
        most, least = lane & segment | last & ~segment, lane & segment
        place = {
            "idx": least | offset & ~segment,
            "bfly": lane ^ offset,
            "up": lane - offset,
            "down": lane + offset,
        }[mode]
        there = place >= most if mode == "up" else place <= most
        place = i - lane + np.where(there, place, lane)
        words, known = np.zeros(block.threads + 32, np.uint32), np.zeros(block.threads + 32, np.bool_)
        words[i], known[i] = given(i), True
        if not known[place].all():
            raise Fault(f"{instruction}: from a lane that takes no part")
        target(i, words[place])
        if inside:
            inside(i, there)

    return Step(run, "warp", mask)


def _ballots(block, i, values):
    bits = np.zeros(block.warps, np.uint64)
    lane = np.uint64(1) << (i % 32).astype(np.uint64)
    np.bitwise_or.at(bits, i // 32, np.where(values, lane, np.uint64(0)))
    return bits[i // 32]


def vote(block, instruction):
    target, given = block.target(instruction.operands[0]), block.source(instruction.operands[1], "pred")
    kind = instruction.parts[2]

    def run(i):
        found, all_lanes = _ballots(block, i, given(i)), _ballots(block, i, np.ones(len(i), np.bool_))
        answers = {"ballot": found.astype(np.uint32), "any": found != 0, "all": found == all_lanes}
        target(i, answers[kind])

    return Step(run, "warp", block.source(instruction.operands[2], "u32"))


def match(block, instruction):
    """For each lane, which lanes have its value."""
    assert instruction.parts[1] == "any", instruction
    target, given = block.target(instruction.operands[0]), block.source(instruction.operands[1], instruction.types[0])

    def run(i):
        values, found = given(i), np.zeros(len(i), np.uint32)
        for n, thread in enumerate(i):
            same = i[(i // 32 == thread // 32) & (values == values[n])]
            found[n] = np.bitwise_or.reduce(np.uint32(1) << (same % 32).astype(np.uint32))
        target(i, found)

    return Step(run, "warp", block.source(instruction.operands[2], "u32"))


def activemask(block, instruction):
    target = block.target(instruction.operands[0])
    return lambda i: target(i, _ballots(block, i, np.ones(len(i), np.bool_)).astype(np.uint32))


def elect(block, instruction):
    lane, chosen = (block.target(name) for name in instruction.operands[0].split("|"))

    def run(i):
        first = np.array([i[i // 32 == thread // 32].min() for thread in i])
        lane(i, (first % 32).astype(np.uint32))
        chosen(i, first == i)

    return Step(run, "warp", block.source(instruction.operands[1], "u32"))


def redux(block, instruction):
    kind = instruction.types[0]
    target, given = block.target(instruction.operands[0]), block.source(instruction.operands[1], kind)
    reduce = REDUCTIONS[instruction.parts[2]].reduce

    def run(i):
        values, found = given(i), np.zeros(len(i), TYPES[kind])
        for warp in np.unique(i // 32):
            found[i // 32 == warp] = reduce(values[i // 32 == warp])
        target(i, found)

    return Step(run, "warp", block.source(instruction.operands[2], "u32"))


def bar(block, instruction):
    if "warp" in instruction.parts:
        return Step(lambda i: None, "warp", block.source(instruction.operands[0], "u32"))
    if "sync" not in instruction.parts:
        raise NotImplementedError(str(instruction))
    count = block.source(instruction.operands[1], "u32") if len(instruction.operands) > 1 else None
    return Step(None, "barrier", (block.source(instruction.operands[0], "u32"), count))


TABLE = {
    "shfl": shfl,
    "vote": vote,
    "match": match,
    "activemask": activemask,
    "elect": elect,
    "redux": redux,
    "bar": bar,
    "barrier": bar,
}
