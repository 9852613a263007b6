"""Where tests build on a device, and in how small steps."""

import torch

DEVICES = ["torch:cpu", *["cuda"] * torch.cuda.is_available()]


def shrink(monkeypatch, device, *tables):
    """How much is done at a time."""
    for table, most in tables:
        monkeypatch.setitem(table, device.removeprefix("torch:"), most)
