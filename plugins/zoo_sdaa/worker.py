"""One card's process: ``python -m zoo_sdaa.worker FD`` serves the session that holds the other end of the socket ``FD``."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from zoo.api import ZooError
from zoo_sdaa.open_session import open_here
from zoo_sdaa.options import parse
from zoo_sdaa.session import SdaaSession


def main(descriptor: int) -> None:
    """Open, serve, release. Ends when it is told to, and when the other side is gone."""
    with Connection(descriptor) as connection:
        Server(connection).serve()


class Server:
    """Answers are ``(number, result, fault)``; batches are answered from the runtime's thread, as they come back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def serve(self) -> None:
        session: SdaaSession | None = None
        try:
            _, name, artifact, options, level = self._connection.recv()
            _log_as(name, level)
            try:
                session = open_here(name, artifact, options, parse(options))
            except ZooError as error:
                self._answer(0, None, f"{name}: {error}")
                return
            self._answer(0, (session.input_names, session.shape_rule), None)
            while (message := self._connection.recv())[0] != "close":
                self._handle(session, *message)
        except (EOFError, ConnectionError):
            return  # the other side is gone, perhaps killed
        finally:
            if session is not None:
                session.close()

    def _handle(self, session: SdaaSession, what: str, number: int, content: Any) -> None:
        if what == "clock":
            self._answer(number, session.device_seconds, None)
            return

        def finished(future: Future[Any]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            self._answer(number, None if error else future.result(), str(error) if error else None)

        try:
            session.submit(content).add_done_callback(finished)
        except ZooError as error:
            self._answer(number, None, str(error))

    def _answer(self, number: int, result: Any, fault: str | None) -> None:
        with self._lock:
            try:
                self._connection.send((number, result, fault))
            except OSError:
                logging.getLogger("zoo.sdaa").debug("nobody takes the answer any more")


def _log_as(name: str, level: int) -> None:
    """Log to stderr at the level of the process that asked."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"[{name}] %(message)s"))
    logger = logging.getLogger("zoo")
    logger.addHandler(handler)
    logger.setLevel(level)


if __name__ == "__main__":
    main(int(sys.argv[1]))
