"""Where the time of a call goes, kernel by kernel."""

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def kernels(run: Callable[[], object], device: str, most: int = 12) -> list[dict[str, Any]]:
    """The longest kernels of three calls: name, milliseconds a call, launches a call. Operators on a CPU."""
    gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA] if gpu else [ProfilerActivity.CPU]) as profiled:
        for _ in range(3):
            run()
        if gpu:
            torch.cuda.synchronize()
    spent = "self_device_time_total" if gpu else "self_cpu_time_total"
    events = sorted(profiled.key_averages(), key=lambda event: -getattr(event, spent))
    return [
        {"name": event.key[:120], "ms": getattr(event, spent) / 3e3, "launches": event.count / 3}
        for event in events[:most]
    ]
