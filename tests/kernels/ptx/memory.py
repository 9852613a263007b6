"""Global memory whose arrays end where they end, and where each state space lies among generic addresses."""

import numpy as np

GLOBAL = 0x10_0000_0000
SHARED, LOCAL, PARAMETERS = 0x7000_0000_0000, 0x7100_0000_0000, 0x7200_0000_0000
GAP = 512  # bytes between two arrays that belong to none


class Fault(Exception):
    """A kernel did what a GPU refuses or leaves undefined."""


class Memory:
    """Of a GPU: arrays begin at multiples of 256 and end exactly."""

    def __init__(self, size=1 << 22):
        self.bytes, self.valid, self.next = np.zeros(size, np.uint8), np.zeros(size, np.bool_), 4096

    def put(self, array):
        """Copies an array in; returns its address."""
        raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        at = -(-self.next // 256) * 256
        self.next = at + len(raw) + GAP
        while self.next > len(self.bytes):
            self.bytes = np.concatenate([self.bytes, np.zeros_like(self.bytes)])
            self.valid = np.concatenate([self.valid, np.zeros_like(self.valid)])
        self.bytes[at : at + len(raw)] = raw
        self.valid[at : at + len(raw)] = True
        return GLOBAL + at

    def get(self, address, count):
        """A copy of so many bytes."""
        return self.bytes[address - GLOBAL : address - GLOBAL + count].copy()


def check(what, at, size, valid):
    """Refuses accesses of ``size`` bytes, a power of two, at offsets that are misaligned or not within an array.

    Arrays begin at multiples of 16, so an aligned word is within one if its last byte is.
    """
    if not len(at):
        return
    bits = int(np.bitwise_or.reduce(at))
    if bits & size - 1:
        raise Fault(f"{what}: misaligned, at {hex(int(at[(at % size) != 0][0]))}")
    try:
        inside = bits >= 0 and valid[at + (size - 1)].all()
    except IndexError:
        inside = False
    if not inside:
        raise Fault(f"{what}: outside of memory, at {[hex(int(x)) for x in at[:4]]}")
