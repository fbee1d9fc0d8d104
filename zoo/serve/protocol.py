"""uvicorn's HTTP protocol with limits of time that it lacks: for a request's head, and for a client that does not read its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

UNREAD_SECONDS = 30.0
"""An answer that its client does not read for so long is given up."""


def protocol_with(header_timeout: float, most: int) -> type[H11Protocol]:
    """A protocol class for uvicorn: a head that takes longer than ``header_timeout`` s to arrive closes its connection.

    Connections past ``most`` are closed at once, so that there are files left to open.
    """

    class TimedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _unread_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.abort()
            else:
                self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop("_head_timer")
            self._stop("_unread_timer")
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop("_unread_timer")

        def _watch_head(self) -> None:
            """Start the timer as long as a head has begun and is not whole; uvicorn's own timer is for connections that wait."""
            if self.conn.their_state is not h11.IDLE:
                self._stop("_head_timer")
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(header_timeout, self._head_is_late)

        def _head_is_late(self) -> None:
            self._head_timer = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

        def _stop(self, name: str) -> None:
            timer: asyncio.TimerHandle | None = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

    return TimedProtocol
