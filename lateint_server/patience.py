"""Connections that are given so much time: to send a request, and to take the answer."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with a clock.

    It runs from the first byte of a request to its last one, whoever reads it or not, and while an answer does not
    leave. A connection that is too slow is closed.
    """

    class Patient(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
        clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._start()

        def on_message_complete(self) -> None:
            self._stop()
            super().on_message_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._start()

        def resume_writing(self) -> None:
            self._stop()
            super().resume_writing()

        def _start(self) -> None:
            self._stop()
            self.clock = self.loop.call_later(seconds, self._late)

        def _stop(self) -> None:
            if self.clock is not None:
                self.clock.cancel()
                self.clock = None

        def _late(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()
                return
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(LATE)
            self.transport.close()

    return Patient
