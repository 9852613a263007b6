"""Which engine searches an index, by the place it is to be in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lateint_kernels.codes.engine import Engine
from lateint_kernels.codes.index_arrays import CodecArrays, SegmentArrays
from lateint_kernels.devices import HOST, Place

if TYPE_CHECKING:
    from lateint_kernels.codes.device.engine import DeviceEngine
    from lateint_kernels.codes.device.shards import ShardedEngine


def engine(
    codec: CodecArrays, segments: Sequence[SegmentArrays], place: Place = HOST
) -> Engine | DeviceEngine | ShardedEngine:
    """`Engine` for the CPU; for a device one that keeps the index there, for several one with a part of it on each.

    Raises:
        MemoryError: see `DeviceEngine`.
    """
    if place.on_host:
        return Engine(codec, segments)
    from lateint_kernels.codes.device.engine import DeviceEngine
    from lateint_kernels.codes.device.shards import ShardedEngine

    if len(place.devices) > 1:
        return ShardedEngine(codec, segments, place.devices, memory=place.memory)
    return DeviceEngine(codec, segments, place.devices[0], memory=place.memory)
