"""Which engine searches an index, by the device it is to be on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lateint_kernels.codes.engine import Engine
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.devices import check_device, check_memory

if TYPE_CHECKING:
    from lateint_kernels.codes.device.engine import DeviceEngine
    from lateint_kernels.codes.device.shards import ShardedEngine


def engine(
    codec: CodecArrays, segments: Sequence[SegmentArrays], device: str = "cpu", memory: int | None = None
) -> Engine | DeviceEngine | ShardedEngine:
    """The engine for a device: `Engine` for ``"cpu"``, for ``"cuda"`` or ``"cuda:1"`` one that keeps the index there,
    for ``"cuda:0,cuda:1"`` one that keeps a part of it on each.

    ``"torch:cpu"`` is a device on the CPU: slow, for tests of that path where there is no GPU.

    Args:
        memory: bytes that the index may take on each device, see `DeviceEngine`; None: all of it must fit.

    Raises:
        BackendError: torch is not installed.
        ValueError: there is no such device, or ``memory`` is given for the CPU.
        MemoryError: see `DeviceEngine`.
    """
    check_device(device)
    check_memory(device, memory)
    if device == "cpu":
        return Engine(codec, segments)
    from lateint_kernels.codes.device.engine import DeviceEngine
    from lateint_kernels.codes.device.shards import ShardedEngine

    devices = device.replace("torch:cpu", "cpu").split(",")
    if len(devices) > 1:
        return ShardedEngine(codec, segments, devices, memory=memory)
    return DeviceEngine(codec, segments, devices[0], memory=memory)
