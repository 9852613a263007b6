"""A thread block: its registers and memory, and instructions' operands as functions of threads.

Threads are the lanes of numpy arrays. An instruction is compiled once, into a function of the threads that execute it.
"""

import random
import re

import numpy as np

from ptx.memory import GLOBAL, LOCAL, PARAMETERS, SHARED, Fault, check
from ptx.program import split_operands
from ptx.values import SIGNED, TYPES, UNSIGNED, size_of

REGISTER_LIKE = re.compile(r"0[fF][0-9a-fA-F]{8}$|0[dD][0-9a-fA-F]{16}$")
INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)U?$")
ADDRESS = re.compile(r"\[\s*([^\]]+?)\s*(?:\+\s*(-?\w+))?\s*\]")
GARBAGE = 0xAB


class Block:
    """Threads of a program, for blocks of a grid one after another.

    Args:
        program: what they execute.
        memory: global memory.
        grid: blocks, in three dimensions.
        threads: of the block.
        parameters: bytes of the kernel's arguments.
        shared: bytes of dynamic shared memory.
        late: asynchronous work happens when it is waited for; otherwise when it is issued.
        skew: how often a warp goes on alone, rather than with those at the same place.
        base: where shared memory of the program begins; what is before is the system's.
        tensor_maps: what a CUtensorMap, 128 bytes, describes.
    """

    def __init__(
        self, program, memory, grid, threads, parameters, shared, *, late=True, skew=0.15, base=1024, tensor_maps=None
    ):
        self.program, self.memory, self.grid, self.threads, self.late = program, memory, grid, threads, late
        self.skew, self.warps = skew, -(-threads // 32)
        self.tensor_maps = tensor_maps or {}
        size = max(program.parameter_bytes, len(parameters))
        self.parameters = np.zeros(-(-size // 8) * 8 + 64, np.uint8)
        self.parameters[: len(parameters)] = np.frombuffer(parameters, np.uint8)
        self.parameters_valid = np.ones(len(self.parameters), np.bool_)
        self.static = -(-base // 16) * 16
        self.dynamic = -(-(self.static + program.shared_bytes) // 16) * 16
        end = self.dynamic + shared
        self.shared = np.zeros(-(-end // 16) * 16, np.uint8)
        self.shared_valid = np.zeros(len(self.shared), np.bool_)
        self.shared_valid[self.static : end] = True
        self.registers = {
            name: np.zeros(threads, UNSIGNED[size_of(kind)] if kind != "pred" else np.bool_)
            for name, kind in program.registers.items()
        }
        self.local = np.zeros((threads, -(-(program.local[1] if program.local else 8) // 8) * 8), np.uint8)
        self.local_valid = np.ones(self.local.size, np.bool_)
        self.globals = {}
        thread = np.arange(threads, dtype=np.uint32)
        self.specials = {"%tid.x": thread, "%laneid": thread % 32, "%warpid": thread // 32}
        sizes = {"%ntid.x": threads, "%ntid.y": 1, "%ntid.z": 1, "%tid.y": 0, "%tid.z": 0, "%cluster_ctarank": 0}
        sizes |= {f"%nctaid.{axis}": count for axis, count in zip("xyz", grid, strict=True)}
        for name in ("%ctaid.x", "%ctaid.y", "%ctaid.z", "%clusterid.x"):
            sizes[name] = 0
        self.specials |= {name: np.full(threads, size, np.uint32) for name, size in sizes.items()}
        self.steps = [None] * len(program.code)

    def start(self, number, seed):
        """Makes it the block of this number, with everything as a launch leaves it."""
        for axis, value in zip("xyz", number, strict=True):
            self.specials[f"%ctaid.{axis}"][:] = value
        self.specials["%clusterid.x"][:] = number[0]
        self.random = random.Random(seed)
        self.landing = self.random.choice((0.0, 0.05, 0.3))  # of a box, without anybody waiting for it, at each step
        self.shared[:] = GARBAGE
        for register in self.registers.values():
            register[:] = 0
        self.barriers = {}  # mbarriers, by their address
        self.spins = 0  # waits in vain since something happened at one
        self.copies = [[] for _ in range(self.threads)]  # cp.async: of a thread, those of no group yet
        self.copy_groups = [[] for _ in range(self.threads)]
        self.boxes = []  # TMA: copies under way
        self.products = {}  # wgmma: of a warpgroup, those of no group yet
        self.product_groups = {}
        self.pending = {}  # accumulators of products under way: (warpgroup, register) -> [values, products]

    def symbol(self, name):
        """The address of what has a name."""
        program = self.program
        if name == program.dynamic_shared:
            return self.dynamic
        if name in program.shared:
            return self.static + program.shared[name]
        if name in program.parameters:
            return PARAMETERS + program.parameters[name]
        if program.local and name == program.local[0]:
            return LOCAL
        kind, count, text = program.globals[name]
        if name not in self.globals:
            values = [int(value, 0) for value in re.findall(r"-?\w+", text)] if text else []
            values += [0] * (count - len(values))
            self.globals[name] = self.memory.put(np.array(values).astype(TYPES[kind]))
        return self.globals[name]

    def source(self, text, kind):
        """What reads an operand as numbers of a type: threads -> array."""
        dtype = np.dtype(TYPES[kind])
        unsigned = UNSIGNED[dtype.itemsize]
        if text in self.registers:
            register = self.registers[text]
            if kind == "pred":
                return lambda i: register[i]
            if register.dtype.itemsize == dtype.itemsize:
                return lambda i: register[i].view(dtype)
            return lambda i: register[i].astype(unsigned).view(dtype)
        if text.startswith("!"):
            register = self.registers[text[1:]]
            return lambda i: ~register[i]
        if text.startswith("%"):
            special = self.specials[text]
            return lambda i: special[i].astype(unsigned).view(dtype)
        constants = np.full(self.threads, self._constant(text, kind, dtype), dtype)
        constants.flags.writeable = False
        return lambda i: constants[: len(i)]

    def _constant(self, text, kind, dtype):
        if text in ("true", "false"):
            return text == "true"
        if REGISTER_LIKE.match(text):
            bits = int(text[2:], 16)
            if kind in ("f32", "f64"):
                return np.array([bits], np.uint32 if text[1] in "fF" else np.uint64).view(
                    np.float32 if text[1] in "fF" else np.float64
                )[0]
        elif INTEGER.match(text):
            bits = int(text.rstrip("U"), 0)
        else:
            bits = self.symbol(text)
        if kind == "pred":
            return bool(bits)
        return np.array([bits & ((1 << (8 * dtype.itemsize)) - 1)], UNSIGNED[dtype.itemsize]).view(dtype)[0]

    def target(self, text):
        """What writes a register: threads, array -> None. Signed numbers are extended, others are cut or padded."""
        if text == "_":
            return lambda i, values: None
        register = self.registers[text]
        size = register.dtype.itemsize

        def put(i, values):
            values = np.asarray(values)
            if register.dtype == np.bool_ or values.dtype == np.bool_:
                register[i] = values
            elif values.dtype.itemsize == size:
                register[i] = values.view(register.dtype)
            elif values.dtype.kind == "i":
                register[i] = values.astype(SIGNED[size]).view(register.dtype)
            else:
                register[i] = values.view(UNSIGNED[values.dtype.itemsize]).astype(register.dtype)

        return put

    def sources(self, text, kind):
        """Of a vector in braces, or of one operand."""
        return [self.source(name, kind) for name in elements(text)]

    def targets(self, text):
        """Likewise."""
        return [self.target(name) for name in elements(text)]

    def address(self, text):
        """What computes an address in brackets: threads -> uint64."""
        base, offset = ADDRESS.match(text).groups()
        narrow = base in self.registers and self.registers[base].dtype.itemsize == 4
        given = self.source(base, "u32" if narrow else "u64")
        added = np.uint64((int(offset, 0) if offset else 0) & (2**64 - 1))
        return lambda i: given(i).astype(np.uint64) + added

    def _place(self, space, address, threads):
        """The array that addresses are in, which bytes of it exist, and offsets."""
        at = address.astype(np.int64)
        if space == "generic":
            space = _space_of(at)
        if space == "param":
            return self.parameters, self.parameters_valid, np.where(at >= PARAMETERS, at - PARAMETERS, at)
        if space == "shared":
            return self.shared, self.shared_valid, np.where(at >= SHARED, at - SHARED, at)
        if space == "local":
            flat, size = self.local.reshape(-1), self.local.shape[1]
            inside = np.where(at >= LOCAL, at - LOCAL, at)
            if len(inside) and (inside.min() < 0 or inside.max() >= size):
                raise Fault("local memory: outside")
            return flat, self.local_valid, inside + threads * size
        return self.memory.bytes, self.memory.valid, at - GLOBAL

    def load(self, space, address, dtype, what, threads=None):
        """Numbers at addresses."""
        array, valid, at = self._place(space, address, threads)
        size = np.dtype(dtype).itemsize
        check(f"{what} ({space})", at, size, valid)
        return array.view(dtype)[at // size]

    def store(self, space, address, values, what, threads=None):
        """Numbers to addresses."""
        array, valid, at = self._place(space, address, threads)
        size = values.dtype.itemsize
        check(f"{what} ({space})", at, size, valid)
        array.view(values.dtype)[at // size] = values


def elements(text):
    """Names in braces, or the one name."""
    return split_operands(text[1:-1]) if text.startswith("{") else [text]


def _space_of(at):
    """Of generic addresses."""
    if not len(at) or at[0] < SHARED:
        return "global"
    if at[0] >= PARAMETERS:
        return "param"
    first, last, name = (SHARED, LOCAL, "shared") if at[0] < LOCAL else (LOCAL, PARAMETERS, "local")
    if ((at < first) | (at >= last)).any():
        raise Fault("addresses of several state spaces in one instruction")
    return name
