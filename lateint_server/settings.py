"""What a server is told, checked once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path

from lateint_server.keys import Keys
from lateint_server.pictures import Limits


@dataclass(frozen=True)
class Settings:
    """Where a server listens, and what it allows; all times are seconds.

    Attributes:
        host, port: the address. One that is not this machine's alone needs keys, or ``open``.
        keys: who may do what.
        open: accept an address that others can reach although there are no keys.
        max_body: bytes of a request.
        max_k: hits a query.
        max_queries, max_documents: in one request.
        max_picture, max_pixels: bytes and pixels of a picture in a query.
        queue: searches, and as many writes, that may wait in an index; more are refused with 429.
        timeout: for a search.
        write_timeout: for a write; what it wanted may still happen afterwards.
        client_timeout: for a client to send a request, and to take the answer.
        refresh: how often to look for what other processes have committed.
        slow: searches that take longer are logged.
        shutdown: for requests to end after SIGTERM.
        images: a folder with pictures that documents name.
        docs: show the interactive page of the routes.
        log_requests: log every request, not only what goes wrong.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    keys: Keys = field(default_factory=Keys)
    open: bool = False
    max_body: int = 32 << 20
    max_k: int = 1000
    max_queries: int = 64
    max_documents: int = 10_000
    max_picture: int = 8 << 20
    max_pixels: int = 1 << 24
    queue: int = 64
    timeout: float = 10.0
    write_timeout: float = 120.0
    client_timeout: float = 30.0
    refresh: float = 1.0
    slow: float = 1.0
    shutdown: float = 30.0
    images: Path | None = None
    docs: bool = True
    log_requests: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "port" and isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
                raise ValueError(f"{one.name} must be above 0, got {value}")
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port must be from 0 to 65535, got {self.port}")
        if self.images is not None and not self.images.is_dir():
            raise ValueError(f"images must be a folder, got {self.images}")
        if not self.loopback and not self.keys and not self.open:
            raise ValueError(
                f"host must be an address of this machine alone, such as 127.0.0.1, while there are no keys, got "
                f"{self.host}; give keys, or open=True where something else guards the server"
            )

    @property
    def pictures(self) -> Limits:
        """What holds for pictures in queries."""
        return Limits(self.max_picture, self.max_pixels)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"
