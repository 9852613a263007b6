"""The index that this process built or opened last, which `lateint.search` searches."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from lateint_kernels.devices import Place

log = logging.getLogger(__package__)

Made = TypeVar("Made")

current: Any = None  # an `Index`


def last(index: Made) -> Made:
    """The same, which is the latest from now on."""
    global current
    current = index
    log.info("ready: %s", index)
    return index


def make_room(place: Place) -> None:
    """Lets go of one that is on a device, before another is put on one."""
    global current
    if current is not None and not place.on_host and not current._snapshot.place.on_host:
        current = None
