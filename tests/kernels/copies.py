"""Copies between the host and a GPU that is not there, counted: of tensors that have a device and no numbers."""

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class Counted(TorchDispatchMode):
    """Counts copies, and operators that CUDA runs with a hidden one because a tensor with one number is the host's."""

    def __init__(self):
        super().__init__()
        self.to_host, self.to_device = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors}
        if func is aten.detach.default and not isinstance(args[0], FakeTensor):  # what came to the host, as an array
            with unset_fake_temporarily():
                return func(*args)
        if func is aten._to_copy.default and "device" in kwargs:
            target = torch.device(kwargs["device"]).type
            if devices == {"cuda"} and target == "cpu":
                self.to_host += 1
                with unset_fake_temporarily():  # numbers for the host: of no document
                    return torch.full(args[0].shape, -1, dtype=args[0].dtype)
            if devices == {"cpu"} and target == "cuda":
                self.to_device.append(str(func))
        elif len(devices) > 1:
            self.to_device.append(str(func))
        return func(*args, **kwargs)


def on_device(tensor):
    """Its like on the GPU, where FakeTensorMode is on."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda:0")
