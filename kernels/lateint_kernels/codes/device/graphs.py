"""Small searches recorded as CUDA graphs: their many small kernels start at once, without Python between them."""

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

KEPT = 32  # forms of searches, the last ones used

Compute = Callable[..., Tensor]


class Recording(NamedTuple):
    """A function that can be run again on what is in ``inputs`` then; ``output`` holds what it gave last."""

    inputs: Sequence[Tensor]
    output: Tensor
    replay: Callable[[], None]


class Graphs:
    """Records what is asked for twice in the same form, and replays it from then on.

    What is recorded must not wait for the device, and sizes must depend on ``key`` alone: DeviceEngine's searches with
    kernels of CUDA and Triton are such. Results are the same; a warning says so where a search cannot be recorded, and
    nothing is recorded after that.

    Args:
        record: records a function with copies of its inputs, such as a `Recorder`.
    """

    def __init__(self, record: Callable[[Compute, Sequence[Tensor]], Recording]) -> None:
        self._record = record
        self._recordings: OrderedDict[Hashable, Recording | None] = OrderedDict()
        self._lock = threading.Lock()
        self._working = True

    def run(self, key: Hashable, compute: Compute, inputs: Sequence[Tensor]) -> Tensor:
        """``compute(*inputs)``, copied to the host.

        Args:
            key: the same for calls whose inputs have the same shapes and that differ in nothing but their numbers.
            inputs: tensors that ``compute`` gets as they are, or that are copied to where it found them first.
        """
        with self._lock:  # a recording has one place for its output
            recording = self._recording(key, compute, inputs)
            if recording is not None:
                for held, given in zip(recording.inputs, inputs, strict=True):
                    held.copy_(given, non_blocking=True)
                recording.replay()
                return recording.output.cpu()
        return compute(*inputs).cpu()

    def _recording(self, key: Hashable, compute: Compute, inputs: Sequence[Tensor]) -> Recording | None:
        if not self._working:
            return None
        if key not in self._recordings:  # most are never asked for again, and recording takes as long as a few searches
            self._recordings[key] = None
        elif self._recordings[key] is None:
            try:
                self._recordings[key] = self._record(compute, inputs)
            except RuntimeError as error:
                self._working = False
                warnings.warn(f"searches go on without CUDA graphs, which cannot record them: {error}", stacklevel=5)
        self._recordings.move_to_end(key)
        if len(self._recordings) > KEPT:
            self._recordings.popitem(last=False)
        return self._recordings[key]


class Recorder:
    """By torch, on one GPU; recordings share their memory, for only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()

    def __call__(self, compute: Compute, inputs: Sequence[Tensor]) -> Recording:
        with torch.cuda.device(self._device):  # torch records a stream of the current one, whatever computes
            held = [tensor.clone() for tensor in inputs]
            current, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                compute(*held)  # what is compiled or allocated once is so before it is recorded
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may allocate meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = compute(*held)
            return Recording(held, output, graph.replay)


def wanted(device: torch.device) -> bool:
    """Whether searches on a device are recorded: on a GPU, unless ``LATEINT_GRAPHS`` is off."""
    return device.type == "cuda" and os.environ.get("LATEINT_GRAPHS", "").lower() != "off"
