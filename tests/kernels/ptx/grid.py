"""A launch: tensors are copied in, every block runs, and what was written is copied out."""

import itertools
import random

import torch

from ptx.block import Block
from ptx.memory import Memory
from ptx.scheduler import Run


class Tensors:
    """Tensors in the memory of a simulated GPU, each with the bytes that it has and no more."""

    def __init__(self):
        self.memory, self.placed = Memory(), {}

    def put(self, tensor):
        """Where it is; the same tensor is put once."""
        key = tensor.data_ptr(), tensor.numel()
        if key not in self.placed:
            count = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
            flat = torch.as_strided(tensor.detach(), (count if tensor.numel() else 0,), (1,), tensor.storage_offset())
            flat = flat.view(torch.uint8)
            self.placed[key] = self.memory.put(flat.numpy()), flat
        return self.placed[key][0]

    def take_back(self):
        """Everything that is not what it was; what was only read may share its memory with another tensor."""
        for address, flat in self.placed.values():
            now = torch.from_numpy(self.memory.get(address, len(flat)))
            if not torch.equal(now, flat):
                flat.copy_(now)


def run(
    program, tensors, grid, threads, parameters, shared, *, seed=0, late=True, skew=0.15, base=1024, tensor_maps=None
):
    """Blocks of a grid, one after another in a random order."""
    block = Block(
        program,
        tensors.memory,
        grid,
        threads,
        parameters,
        shared,
        late=late,
        skew=skew,
        base=base,
        tensor_maps=tensor_maps,
    )
    numbers = list(itertools.product(*map(range, grid)))
    random.Random(seed).shuffle(numbers)
    for count, number in enumerate(numbers):
        block.start(number, seed + count)
        Run(block).finish()
    tensors.take_back()
