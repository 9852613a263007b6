"""What each instruction does to the threads that execute it.

A function takes the block and the instruction and returns a `Step`, or simply a function of threads.
"""

from ptx.instructions import arithmetic, bits, copies, data, hopper, matrices, warps
from ptx.instructions.step import Step

TABLE = {
    name: function
    for module in (arithmetic, bits, copies, data, hopper, matrices, warps)
    for name, function in module.TABLE.items()
}


def compiled(block, at):
    """The step of the instruction at a place: made once."""
    if block.steps[at] is None:
        instruction = block.program.code[at]
        make = TABLE.get(instruction.parts[0])
        if make is None:
            raise NotImplementedError(str(instruction))
        made = make(block, instruction)
        block.steps[at] = made if isinstance(made, Step) else Step(made)
    return block.steps[at]
