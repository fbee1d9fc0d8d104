"""``python -m zoo.scoring.child FD``: open a session and serve whoever holds the other end of the socket ``FD``.

The process ends when that end is closed, or on SIGTERM, and closes its session before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any

from zoo.errors import ZooError
from zoo.scoring.session_process import portable, unsendable
from zoo.types import Session


class Server:
    """Answers are ``(number, error, content)``; batches are answered as they come back, from whatever thread that is."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._messages: SimpleQueue[tuple[int, tuple[Any, ...]] | None] = SimpleQueue()
        self._opening = threading.Lock()
        self._opening_ended = False

    def serve(self) -> None:
        """Open, answer, close. Ends when the other side is gone, even while it opens, which may take minutes."""
        number, (_, name, opener, artifact, options, cpus, level) = self._pipe.recv()
        _log_as(name, level)
        threading.Thread(target=self._read, name="zoo-messages", daemon=True).start()
        try:
            if cpus and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, cpus)
            session: Session = opener(artifact, options)
        except Exception as error:
            self._end_opening()
            return self._answer(
                number, error if isinstance(error, ZooError) else ZooError(f"{type(error).__name__}: {error}")
            )
        with session:
            self._end_opening()
            self._answer(number, None, (list(session.input_names), session.shape_rule))
            while (message := self._messages.get()) is not None:
                self._handle(session, *message)
        return None

    def _end_opening(self) -> None:
        """From now on the process ends by itself, and a signal would only disturb it."""
        with self._opening:
            self._opening_ended = True

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._messages.put(self._pipe.recv())
        self._messages.put(None)
        with self._opening:
            if not self._opening_ended:
                os.kill(os.getpid(), signal.SIGTERM)  # nobody waits for the session any more

    def _handle(self, session: Session, number: int, content: tuple[Any, ...]) -> None:
        try:
            if content[0] == "clock":
                self._answer(number, None, session.device_seconds)
                return
            _, inputs, outputs = content
            future = session.submit(inputs) if outputs is None else session.submit(inputs, outputs)
        except Exception as error:
            self._answer(number, error)
        else:
            future.add_done_callback(lambda done: self._finished(number, done))

    def _finished(self, number: int, future: Future[Any]) -> None:
        if future.cancelled():
            return  # the session is closing: nobody waits for it
        error = future.exception()
        try:
            self._answer(number, error, None if error else dict(future.result()))
        except ConnectionError:
            pass  # the other side is gone
        except Exception as fault:
            self._answer(number, unsendable(fault))

    def _answer(self, number: int, error: BaseException | None, content: object = None) -> None:
        with self._sending:
            self._pipe.send((number, error and portable(error), content))


def _log_as(name: str, level: int) -> None:
    """Log to stderr at the level of the process that asked."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"[{name}] %(message)s"))
    log = logging.getLogger("zoo")
    log.addHandler(handler)
    log.setLevel(level)


def _end(number: int, frame: FrameType | None) -> None:
    """End the main thread, so that it closes its session; a second signal does not disturb it in that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    with contextlib.suppress(EOFError, ConnectionError):  # the other side is gone
        Server(Connection(int(sys.argv[1]))).serve()
