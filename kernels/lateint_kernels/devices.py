"""Where an index is searched or built: read from what a user says once, and checked there."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from lateint_kernels import backends
from lateint_kernels.integers import positive


@dataclass(frozen=True)
class Place:
    """The CPU, or devices that torch computes on. Made by `of`.

    Attributes:
        names: ``("cpu",)``, ``("cuda",)``, ``("cuda:0", "cuda:1")``, or ``("torch:cpu",)``: torch on the CPU, which is
            slow, for tests where there is no GPU.
        memory: bytes that an index may take on each device; None: all of it must fit.
    """

    names: tuple[str, ...] = ("cpu",)
    memory: int | None = None

    @classmethod
    def of(cls, device: Any = None, memory: Any = None) -> Place:
        """From a name, a ``torch.device``, a list of them, several names with commas between, or None for the CPU.

        Raises:
            BackendError: torch is not installed.
            TypeError: ``device`` is none of these, or ``memory`` is no integer.
            ValueError: there is no such device, or ``memory`` is not positive, or given for the CPU.

        >>> Place.of(), str(Place.of("cpu"))
        (Place(names=('cpu',), memory=None), 'cpu')
        """
        several = device if isinstance(device, list | tuple) else ["cpu" if device is None else device]
        if not several:
            raise ValueError("device must name one device at least, got an empty list")
        place = cls(
            tuple(name for one in several for name in _name(one).split(",")),
            None if memory is None else positive(memory, "device_memory"),
        )
        for name in place.names:
            _check(name, len(place.names) > 1)
        if place.on_host and place.memory is not None:
            raise ValueError("device_memory must be left out on the cpu, which maps the files of an index")
        return place

    @property
    def on_host(self) -> bool:
        """Whether the compiled kernels of the CPU do it, without torch."""
        return self.names == ("cpu",)

    @property
    def devices(self) -> tuple[str, ...]:
        """As torch calls them."""
        return tuple(name.removeprefix("torch:") for name in self.names)

    def __str__(self) -> str:
        return ",".join(self.names)


HOST = Place()


def _name(device: Any) -> str:
    torch = sys.modules.get("torch")
    if not isinstance(device, str) and not (torch and isinstance(device, torch.device)):
        raise TypeError(f"device must be a string or a torch.device, or a list of them, got {type(device).__name__}")
    return str(device)


def _check(name: str, several: bool) -> None:
    if name == "cpu" and not several:
        return
    kind, _, number = name.partition(":")
    if kind != "cuda" and name != "torch:cpu":
        wanted = "several devices must all be cuda" if several else "device must be cpu or cuda"
        raise ValueError(f"{wanted}, got {name!r}")
    if not backends.has_torch():
        raise backends.BackendError(f"device {name} needs torch, which is not installed")
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count()
        if not (number or "0").isdecimal() or int(number or "0") >= count:
            raise ValueError(f"device must be there, but torch finds {count} of CUDA, got {name!r}")
