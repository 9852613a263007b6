"""Asynchronous copies: cp.async by threads, boxes by the copy engine, and the mbarriers that count them."""

import re
from dataclasses import dataclass

import numpy as np

from ptx.instructions.step import Step
from ptx.memory import GLOBAL, PARAMETERS, Fault, check


@dataclass
class Barrier:
    """An mbarrier."""

    count: int
    pending: int
    bytes: int = 0
    phase: int = 0

    def advance(self):
        """Into the next phase, if this one is over."""
        if not self.pending and not self.bytes:
            self.phase, self.pending = self.phase + 1, self.count


@dataclass(frozen=True)
class Matrix:
    """What a tensor map describes: ``[rows, columns]`` numbers of 16 bits, in boxes swizzled by 128 bytes."""

    address: int
    rows: int
    columns: int
    box_rows: int
    box_columns: int = 64


def cp(block, instruction):
    if instruction.name.startswith("cp.async.bulk.tensor.2d"):
        return _box(block, instruction)
    if "commit_group" in instruction.parts:
        return lambda i: [_commit(block, thread) for thread in i]
    if "wait_all" in instruction.parts or "wait_group" in instruction.parts:
        keep = int(instruction.operands[0], 0) if instruction.operands else 0
        return lambda i: _wait(block, i, keep, not instruction.operands)
    if "bulk" in instruction.parts or "mbarrier" in instruction.parts:
        raise NotImplementedError(str(instruction))
    to, given = block.address(instruction.operands[0]), block.address(instruction.operands[1])
    size = int(instruction.operands[2], 0)
    count = block.source(instruction.operands[3], "u32") if len(instruction.operands) > 3 else None

    def run(i):
        counts = count(i) if count else np.full(len(i), size)
        for thread, *copy in zip(i, to(i).tolist(), given(i).tolist(), counts.tolist(), strict=True):
            if copy[0] % size or (copy[2] and copy[1] % size):
                raise Fault(f"{instruction}: misaligned")
            if block.late:
                block.copies[thread].append((*copy, size))
            else:
                _copy(block, [(*copy, size)])

    return run


def _commit(block, thread):
    block.copy_groups[thread].append(block.copies[thread])
    block.copies[thread] = []


def _wait(block, threads, keep, everything):
    copies = []
    for thread in threads:
        if everything:
            _commit(block, thread)
        while len(block.copy_groups[thread]) > keep:
            copies += block.copy_groups[thread].pop(0)
    _copy(block, copies)


def _copy(block, copies):
    """To shared memory, from global memory, how many bytes of it, and how many in all, with zeros."""
    for size in {copy[3] for copy in copies}:
        to, given, count, _ = np.array([copy for copy in copies if copy[3] == size], np.int64).T
        check("cp.async to shared memory", to, size, block.shared_valid)
        byte = np.arange(size)
        taken = byte < count[:, None]
        source = (given[:, None] - GLOBAL + byte)[taken]
        check("cp.async from global memory", source, 1, block.memory.valid)
        words = np.zeros(taken.shape, np.uint8)
        words[taken] = block.memory.bytes[source]
        block.shared[to[:, None] + byte] = words


def mbarrier(block, instruction):
    parts, operands = instruction.parts, instruction.operands
    if "init" in parts:
        address, count = block.address(operands[0]), block.source(operands[1], "u32")
        return lambda i: [_init(block, a, c) for a, c in zip(address(i).tolist(), count(i).tolist(), strict=True)]
    if "inval" in parts:
        address = block.address(operands[0])
        return lambda i: [block.barriers.pop(a) for a in address(i).tolist()]
    if "try_wait" in parts or "test_wait" in parts:
        return _try_wait(block, instruction)
    if "arrive" in parts:
        address = block.address(operands[1])
        expected = block.source(operands[2], "u32") if "expect_tx" in parts else None
        return lambda i: _arrive(block, address(i).tolist(), expected(i).tolist() if expected else [0] * len(i), True)
    if "expect_tx" in parts:
        address, expected = block.address(operands[0]), block.source(operands[1], "u32")
        return lambda i: _arrive(block, address(i).tolist(), expected(i).tolist(), False)
    raise NotImplementedError(str(instruction))


def _init(block, at, count):
    check("mbarrier", np.array([at]), 8, block.shared_valid)
    block.barriers[at] = Barrier(count, count)


MOST_SPINS = 5000  # since a barrier was last arrived at, by all threads together


def barrier_at(block, at):
    """The mbarrier at an address."""
    if at not in block.barriers:
        raise Fault(f"no mbarrier at {hex(at)}")
    return block.barriers[at]


def _arrive(block, addresses, expected, arriving):
    block.spins = 0
    for at, count in zip(addresses, expected, strict=True):
        barrier = barrier_at(block, at)
        barrier.bytes += count
        if arriving:
            barrier.pending -= 1
            if barrier.pending < 0:
                raise Fault("mbarrier: more arrivals in a phase than it expects")
            barrier.advance()


def _try_wait(block, instruction):
    assert "parity" in instruction.parts, instruction
    target, address = block.target(instruction.operands[0]), block.address(instruction.operands[1])
    parity = block.source(instruction.operands[2], "u32")

    def run(i):
        over = [(barrier_at(block, a).phase & 1) != p for a, p in zip(address(i).tolist(), parity(i), strict=True)]
        if not all(over) and block.boxes and block.random.random() < 0.7:
            land(block, block.random.randrange(len(block.boxes)))
        if not any(over):
            block.spins += 1
            if block.spins > MOST_SPINS:
                raise Fault(f"{instruction}: waits for a phase that does not end")
        target(i, np.array(over))

    return Step(run, "yield")


def _box(block, instruction):
    assert "complete_tx::bytes" in instruction.name, instruction
    to, barrier = block.address(instruction.operands[0]), block.address(instruction.operands[2])
    name, places = re.match(r"\[\s*([^,]+),\s*\{([^}]*)\}\s*\]", instruction.operands[1]).groups()
    given = block.source(name, "u64")
    column, row = (block.source(place.strip(), "s32") for place in places.split(","))

    def run(i):
        for n in range(len(i)):
            at = int(given(i)[n])
            if at % 64:
                raise Fault("a tensor map that is not aligned by 64")
            raw = block.parameters[at - PARAMETERS :][:128].tobytes() if at >= PARAMETERS else None
            raw = block.memory.get(at, 128).tobytes() if raw is None else raw
            place = int(column(i)[n]), int(row(i)[n])
            block.boxes.append((int(to(i)[n]), block.tensor_maps[raw], *place, int(barrier(i)[n])))
            if not block.late:
                land(block, len(block.boxes) - 1)

    return run


def land(block, number):
    """A box arrives in shared memory, and its barrier is told."""
    to, matrix, first_column, first_row, at = block.boxes.pop(number)
    if to % 1024:
        raise Fault(f"a box to {hex(to)}: the swizzle counts from multiples of 1024")
    row, column = np.arange(matrix.box_rows)[:, None], np.arange(matrix.box_columns)[None, :]
    r, c = first_row + row, first_column + column
    inside = (r >= 0) & (r < matrix.rows) & (c >= 0) & (c < matrix.columns)
    source = matrix.address - GLOBAL + (r * matrix.columns + c) * 2
    check("a box from global memory", source[inside], 2, block.memory.valid)
    numbers = np.zeros(inside.shape, np.uint16)
    numbers[inside] = block.memory.bytes.view(np.uint16)[source[inside] // 2]
    place = to + row * matrix.box_columns * 2 + column * 2
    place = place ^ (place >> 7 & 7) << 4
    check("a box to shared memory", place.reshape(-1), 2, block.shared_valid)
    block.shared.view(np.uint16)[place // 2] = numbers
    barrier = barrier_at(block, at)
    block.spins = 0
    barrier.bytes -= numbers.nbytes
    barrier.advance()


TABLE = {"cp": cp, "mbarrier": mbarrier}
