"""Runs a block: a warp at random, as far as it comes; and what makes threads wait for each other."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx.instructions import compiled
from ptx.instructions.copies import land
from ptx.instructions.step import NOT_YET
from ptx.memory import Fault

LIMIT = 500_000  # segments of a block: more are a loop without an end
NOWHERE = 1 << 60
RUNNING, AT_BARRIER, GATHERING = 0, 1, 2


@dataclass
class Threads:
    """Where each thread is, and whether it may go on."""

    at: Any
    done: Any
    state: Any
    barrier: Any  # the number of the one it waits at

    @classmethod
    def of(cls, count):
        return cls(np.zeros(count, np.int64), np.zeros(count, np.bool_), np.zeros(count, np.int8), np.full(count, -1))


class Run:
    """One block from its first instruction to its last."""

    def __init__(self, block):
        self.block, self.threads = block, Threads.of(block.threads)
        self.wanted = {}  # barrier -> threads it is for; None: all
        self.labels = set(block.program.labels.values())
        self.warp, self.firsts = np.arange(block.threads) // 32, np.arange(0, block.threads, 32)
        self.lane = (np.arange(block.threads) % 32).astype(np.uint32)

    def finish(self):
        """Raises a Fault if it cannot be finished, or leaves something under way."""
        block, threads = self.block, self.threads
        for _ in range(LIMIT):
            if threads.done.all():
                break
            if block.boxes and block.random.random() < block.landing:
                land(block, block.random.randrange(len(block.boxes)))
            ready = ~threads.done & (threads.state == RUNNING)
            if ready.any():
                self.segment(*self.choose(ready))
            elif not self.release():
                if not block.boxes:
                    raise Fault(f"deadlock at {[str(x) for x in self.places()]}")
                land(block, 0)
        else:
            raise Fault("a loop without an end")
        if any(block.product_groups.values()):
            raise Fault("products that nothing waited for")
        if block.boxes:
            raise Fault("the block ends with copies under way")

    def places(self):
        code = self.block.program.code
        return [code[at] for at in sorted(set(self.threads.at[~self.threads.done].tolist()))[:4] if at < len(code)]

    def choose(self, ready):
        """Of a random warp the threads furthest behind, often with those of other warps at the same place."""
        at, choice = np.where(ready, self.threads.at, NOWHERE), self.block.random
        behind = np.minimum.reduceat(at, self.firsts)
        warp = choice.choice(np.flatnonzero(behind < NOWHERE).tolist())
        place = int(behind[warp])
        chosen = (at == place) & (behind[self.warp] == place)
        if choice.random() < self.block.skew:
            chosen &= self.warp == warp
        return np.flatnonzero(chosen), place

    def segment(self, i, at):
        """Threads i from an instruction until they part, wait, or come to a label."""
        threads, code, first = self.threads, self.block.program.code, at
        while True:
            if at >= len(code):
                threads.done[i] = True
                return
            if at != first and at in self.labels:
                threads.at[i] = at
                return
            instruction, step = code[at], compiled(self.block, at)
            acting, others = i, i[:0]
            if instruction.predicate:
                chosen = self.block.registers[instruction.predicate][i] != instruction.negated
                acting, others = i[chosen], i[~chosen]
            if step.kind == "plain":
                if len(acting):
                    step.run(acting)
                at += 1
                continue
            threads.at[others] = at + 1
            if step.kind == "jump":
                threads.at[acting] = step.detail
                return
            if step.kind == "exit":
                threads.done[acting] = True
                if not len(others):
                    return
                i, at = others, at + 1
                continue
            threads.at[acting] = at
            if step.kind == "barrier":
                self.arrive(acting, *step.detail)
            elif step.kind == "yield":
                step.run(acting)
                threads.at[acting] = at + 1
            else:
                if step.kind == "group" and len(others):
                    raise Fault(f"{instruction}: threads of a warpgroup part")
                self.gather(acting, at, step, instruction)
            return

    def arrive(self, i, number, count):
        """At a barrier of the block."""
        if not len(i):
            return
        self.threads.state[i] = AT_BARRIER
        self.threads.barrier[i] = number(i)
        for barrier, wanted in zip(number(i).tolist(), count(i).tolist() if count else [None] * len(i), strict=True):
            self.wanted[barrier] = wanted
        self.release()

    def release(self):
        """Opens barriers that all have come to; whether there were any."""
        threads, moved = self.threads, False
        for barrier, wanted in self.wanted.items():
            here = (threads.state == AT_BARRIER) & (threads.barrier == barrier)
            if here.any() and here.sum() >= (int((~threads.done).sum()) if wanted is None else wanted):
                threads.state[here] = RUNNING
                threads.at[here] += 1
                moved = True
        return moved

    def gather(self, i, at, step, instruction):
        """What a warp, or a warpgroup, executes together: those who come first wait."""
        threads, size = self.threads, 128 if step.kind == "group" else 32
        unit = np.arange(self.block.threads) // size
        here = (threads.state == GATHERING) & (threads.at == at)
        here[i] = True
        needed = ~threads.done
        if step.kind == "warp":
            masks = np.zeros(self.block.warps, np.uint32)
            masks[self.warp[i[::-1]]] = step.detail(i)[::-1]  # of each warp that of its first thread
            named = (masks[self.warp] >> self.lane & 1).astype(np.bool_)
            if not named[i].all():
                raise Fault(f"{instruction}: a lane that its mask does not name")
            needed &= named
        complete = ~np.logical_or.reduceat(needed & ~here, np.arange(0, self.block.threads, size))
        come = np.zeros_like(complete)
        come[unit[i]] = True
        threads.state[i[~complete[unit[i]]]] = GATHERING
        go = np.flatnonzero(here & (complete & come)[unit])
        if len(go):
            threads.state[go] = RUNNING
            finished = step.run(go) is not NOT_YET
            threads.at[go] = at + finished
