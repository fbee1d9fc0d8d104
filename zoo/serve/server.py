"""Runs a service until it is told to end: one process, one event loop, one socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from zoo.errors import ZooError
from zoo.serve.app import Service
from zoo.serve.models import ServedModel
from zoo.serve.protocol import protocol_with
from zoo.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

KEEP_ALIVE = 65
"""Seconds that an idle connection is kept: longer than the 60 s of most balancers, which would meet a closed one otherwise."""
LAST_SECONDS = 5
"""What connections get to close after the last answer."""
BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn, ended by a drain: no new requests for scores, the open ones answered, then the end with exit code 0."""

    def __init__(self, models: Sequence[ServedModel], settings: ServeSettings, announce: Callable[[str], None]) -> None:
        self.settings = settings
        self.fatal: ZooError | None = None
        self._listener = listening(settings.host, settings.port)
        self.address = address_of(self._listener)
        self.service = Service(models, settings, on_ready=lambda: announce(self.address), on_fatal=self._end_with)
        super().__init__(
            uvicorn.Config(
                self.service.app(),
                http=protocol_with(settings.header_timeout, 2 * settings.max_requests),
                ws="none",
                lifespan="on",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=LAST_SECONDS,
                backlog=BACKLOG,
            )
        )
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # a client's broken request is not worth a log line

    def serve_until_told(self) -> None:
        """Serve. Returns after SIGTERM or SIGINT; raises ZooError if a model cannot be served."""
        asyncio.run(self.serve([self._listener]))
        if self.fatal is not None:
            raise self.fatal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn calls it. The log then has the address."""
        # Logged from here on, when a signal begins the drain, and not before: whoever reads it may send one.
        logger.info(
            "listening on %s, opening %s", self.address, ", ".join(each.name for each in self.service.models.all)
        )
        await super().startup(sockets)

    def drain(self) -> None:
        """Begin to end; a second call ends at once."""
        if self.service.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        logger.info("shutting down: %d requests are being answered", self.service.in_progress)
        self._drained = asyncio.ensure_future(self._when_answered())

    async def _when_answered(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.drain_timeout
        while self.service.in_progress and loop.time() < end:
            await asyncio.sleep(0.02)
        if self.service.in_progress:
            logger.warning("%d requests are given up after %g s", self.service.in_progress, self.settings.drain_timeout)
            self.service.give_up()
        self.should_exit = True

    def _end_with(self, error: ZooError) -> None:
        self.fatal = self.fatal or error
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn ends by raising the signal again, which is an exit code of its own. Here a signal begins the drain."""
        self.loop = loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGTERM, signal.SIGINT)
        before = {each: signal.getsignal(each) for each in signals}
        for each in signals:
            try:
                loop.add_signal_handler(each, self.drain)
            except NotImplementedError:  # the event loop of Windows
                signal.signal(each, lambda number, frame: loop.call_soon_threadsafe(self.drain) and None)
        try:
            yield
        finally:
            for each in signals:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(each)
                signal.signal(each, before[each])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host`` and ``port``. Raises ZooError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only if the protocol is named; with it, each answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ZooError(
            f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}. Choose another `host` or `port`"
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The address of a listening socket as a URL: ``http://127.0.0.1:8000``."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
