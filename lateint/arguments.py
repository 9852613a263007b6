"""Settings as users pass them: each is refused in one sentence that names it."""

from __future__ import annotations

import operator
import sys
from typing import Any

from lateint_kernels.devices import check_device, check_memory

MOST_THREADS = 4096  # as LATEINT_NUM_THREADS


def integer(value: Any, name: str) -> int:
    """An integer of Python, whoever's ``value`` is; but True and False are none."""
    try:
        if not isinstance(value, bool):
            return int(operator.index(value))
    except TypeError:
        pass
    raise TypeError(f"{name} must be an integer, got {type(value).__name__}")


def positive(value: Any, name: str) -> int:
    number = integer(value, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def positive_or_none(value: Any, name: str) -> int | None:
    return None if value is None else positive(value, name)


def device_name(device: Any) -> str:
    """A device by its name: cpu, cuda, cuda:1, or several: cuda:0,cuda:1. torch:cpu is for tests."""
    torch = sys.modules.get("torch")

    def name(one: Any) -> str:
        if not isinstance(one, str) and not (torch and isinstance(one, torch.device)):
            raise TypeError(f"device must be a string or a torch.device, or a list of them, got {type(one).__name__}")
        return str(one)

    several = device if isinstance(device, (list, tuple)) else ["cpu" if device is None else device]
    if not several:
        raise ValueError("device must name one device at least, got an empty list")
    names = ",".join(map(name, several))
    check_device(names)
    return names


def place_of(device: Any, device_memory: Any) -> tuple[str, int | None]:
    """A device's name, and bytes on it that an index may take: refused before anything is built."""
    name, memory = device_name(device), positive_or_none(device_memory, "device_memory")
    check_memory(name, memory)
    return name, memory


def thread_count(threads: int | None) -> int:
    """0 stands for the default of the kernels."""
    if threads is None:
        return 0
    if (count := positive(threads, "threads")) > MOST_THREADS:
        raise ValueError(f"threads must be at most {MOST_THREADS}, got {count}")
    return count
