"""Time, memory and the ceilings of the hardware."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

DATASHEET = {
    "NVIDIA H200": (4.8e12, 989e12),
    "NVIDIA H100 80GB HBM3": (3.35e12, 989e12),
}  # bytes and bf16 FLOP a second


@dataclass
class Stopwatch:
    """Milliseconds of a function: medians, on a GPU between events, with cold L2 caches.

    Args:
        device: "cuda" or "cpu".
        seconds: of repetitions, about.
    """

    device: str
    seconds: float

    def __post_init__(self) -> None:
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device=self.device) if self.device == "cuda" else None

    def time(self, run: Callable[[], object]) -> dict[str, float]:
        """``ms`` of calls from Python and ``ms_graph`` of a replayed CUDA graph, where one can be recorded."""
        for _ in range(2):
            run()
        if self.device == "cpu":
            start = time.perf_counter()
            run()
            return {"ms": 1e3 * (time.perf_counter() - start)}
        found = {"ms": self._events(run)}
        if (graph := _record(run)) is not None:
            found["ms_graph"] = self._events(graph.replay)
        return found

    def _events(self, run: Callable[[], object]) -> float:
        times: list[float] = []
        deadline = time.perf_counter() + self.seconds
        while len(times) < 5 or (time.perf_counter() < deadline and len(times) < 200):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            assert self.flush is not None
            self.flush.zero_()
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        return statistics.median(times)


def _record(run: Callable[[], object]) -> torch.cuda.CUDAGraph | None:
    """None if the function waits for the GPU, or does something else that a graph cannot hold."""
    graph = torch.cuda.CUDAGraph()
    try:
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):  # gradients stay on the stream of the forward
            run()
        return graph
    except Exception:
        torch.cuda.synchronize()
        return None


def extra_memory(run: Callable[[], object], device: str) -> int | None:
    """The peak of what a call allocates, its results too, in bytes."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = run()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before


def ceilings(watch: Stopwatch) -> dict[str, float]:
    """Bytes a second of a copy, read and written, and FLOP a second of a large bf16 product; the datasheet's beside."""
    size, side = (1 << 32, 8192) if watch.device == "cuda" else (1 << 20, 64)
    source = torch.empty(size, dtype=torch.uint8, device=watch.device)
    target = torch.empty_like(source)
    left, right = (torch.randn(side, side, device=watch.device, dtype=torch.bfloat16) for _ in range(2))
    found = {
        "bytes_per_s": 2 * size / (watch.time(lambda: target.copy_(source))["ms"] / 1e3),
        "flop_per_s": 2 * side**3 / (watch.time(lambda: left @ right)["ms"] / 1e3),
    }
    if watch.device == "cuda" and (known := DATASHEET.get(torch.cuda.get_device_name())):
        found["datasheet_bytes_per_s"], found["datasheet_flop_per_s"] = known
    return found
