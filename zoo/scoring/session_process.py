"""A session in a child process: what crashes, prints or hangs there is an error here that names it.

The parent holds one end of a socket and starts ``python -m zoo.scoring.child`` with the other end. The child ends when its end reads
EOF, so it never outlives its parent, and it releases its session before.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from zoo.errors import PluginError, ZooError
from zoo.quiet_imports import SWITCHES
from zoo.streams import is_open
from zoo.types import Artifact, Session, SessionOptions, ShapeRule, Tensors
from zoo.wording import ending

logger = logging.getLogger(__name__)

Opener = Callable[[Artifact, SessionOptions], Session]
"""Opens a session in a child process; it is pickled, so it is a function of a module or a partial of one."""

HANDS_ON_DESCRIPTORS = os.name == "posix"
"""Whether a child process can be given an open socket by its number: Windows has no such thing."""

CLOSING_SECONDS = 10.0
"""A process that has not ended by itself so long after it was told to is killed."""

OPENING_SECONDS = 2.0
"""The same for a process that is still opening its session, or that was killed."""


@dataclass(frozen=True, kw_only=True)
class ChildSettings:
    """How a session is opened in a process of its own.

    ``name`` is what messages call it. ``opener`` is called in the process with ``artifact`` and ``options`` and gives the session; it is
    sent there by its name. ``cpus`` are those that the process is bound to, all if it is empty. ``environment`` is added to the process's
    environment variables. ``hint`` is the end of the message if it dies or hangs, and ``slow_hint`` comes after it if it hangs.
    ``closing_seconds`` is how long it may take to end after it was told to. A session that is open and has not answered any batch for
    ``answer_seconds`` counts as lost; None waits for ever.
    """

    name: str
    opener: Opener
    artifact: Artifact
    options: SessionOptions
    cpus: Sequence[int] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    slow_hint: str = ""
    closing_seconds: float = CLOSING_SECONDS
    answer_seconds: float | None = None


class SessionProcess:
    """A session in a process of its own. Construction starts it; ``wait_until_open`` raises what opening raised there.

    What the process prints to stdout goes to stderr, so that results stay clean. It does not receive Ctrl-C: the run decides
    when it ends.
    """

    input_names: Sequence[str]
    """Those of the session there; set by ``wait_until_open``, as ``shape_rule`` is."""
    shape_rule: ShapeRule
    """The batches that the session there wants."""

    def __init__(self, settings: ChildSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._pending: dict[int, Future[Any]] = {}
        self._waiting_since = time.monotonic()
        """When the process last answered, or was asked something while it had nothing to do."""
        self._numbers = itertools.count()
        self._state, self._sending = threading.Lock(), threading.Lock()
        self._error: ZooError | None = None
        self._closed = False
        self._process, self._socket = _start(settings.environment)
        self._pipe = Connection(os.dup(self._socket.fileno()))
        level = logging.getLogger("zoo").level
        try:
            self._greeting = self._ask(
                ("open", self.name, settings.opener, settings.artifact, settings.options, list(settings.cpus), level)
            )
        except BaseException:  # for example an opener that cannot be pickled
            self._process.kill()
            self._process.wait()
            self._pipe.close()
            self._socket.close()
            raise
        self._listener = threading.Thread(target=self._listen, name=f"zoo-{self.name}", daemon=True)
        self._listener.start()

    def wait_until_open(self) -> SessionProcess:
        """Raises ZooError with what hindered the process from opening its session."""
        self.input_names, self.shape_rule = self._greeting.result()
        return self

    @property
    def busy(self) -> int:
        """Batches that it has not answered."""
        return len(self._pending)

    @property
    def process_id(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    @property
    def device_seconds(self) -> float | None:
        """What the session there says; None if it has closed or has no counter."""
        if self._closed or self._error is not None:
            return None
        try:
            seconds: float | None = self._ask(("clock",)).result()
        except ZooError as error:
            logger.warning("the device time is not known: %s", error)
            return None
        return seconds

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        """Start a batch there; see ``zoo.api.Session``. Raises ZooError if the session is closed or the process has died."""
        if self._closed:
            raise ZooError("this session is closed")
        return self._ask(("batch", dict(inputs), outputs))

    def stop(self) -> None:
        """Tell it to end, without waiting. Harmless when repeated, or when it has died."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)  # it reads EOF; unlike a message this never blocks

    def wait(self) -> None:
        """Wait until it has ended. One that does not end in time is killed, and given up if the system cannot end it either."""
        opened = self._greeting.done() and self._error is None
        seconds = self._settings.closing_seconds if opened else OPENING_SECONDS
        if not self._ended(seconds):
            if opened:
                logger.warning("%s does not end and is killed; what it held is not released", self.name)
            self._process.kill()
            if not self._ended(OPENING_SECONDS):
                logger.warning("%s (process %d) cannot be ended", self.name, self._process.pid)
                return
        if self._listener is not threading.current_thread():
            self._listener.join(OPENING_SECONDS)
        self._socket.close()

    def close(self) -> None:
        """End the process and wait for it. May be called twice."""
        self.stop()
        self.wait()

    def __enter__(self) -> SessionProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ended(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _ask(self, content: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._state:
            if self._error is not None:
                raise self._error
            number = next(self._numbers)
            if not self._pending:
                self._waiting_since = time.monotonic()
            self._pending[number] = future
        try:
            with self._sending:
                self._pipe.send((number, content))
        except OSError:
            pass  # it has died: _listen notices, and fails every waiting future
        except BaseException:
            self._pending.pop(number, None)
            raise
        return future

    def _listen(self) -> None:
        try:
            while self._answers():
                number, error, answer = self._pipe.recv()
                with self._state:
                    future = self._pending.pop(number)
                    self._waiting_since = time.monotonic()
                if future.set_running_or_notify_cancel():
                    future.set_exception(error) if error else future.set_result(answer)
            self._process.kill()
            self._fail(f"has not answered for {self._settings.answer_seconds:g} s", self._settings.slow_hint)
        except (EOFError, OSError):
            self._fail(f"has died: {_cause(self._process.returncode if self._ended(OPENING_SECONDS) else None)}")
        except Exception as error:  # whatever it is, nobody may go on waiting
            self._fail(f"gave an answer that cannot be read: {type(error).__name__}: {error}")
        finally:
            self._pipe.close()

    def _answers(self) -> bool:
        """Wait for an answer, or EOF. False if the session takes longer than it may."""
        limit = self._settings.answer_seconds
        if limit is None:
            return True
        while not self._pipe.poll(min(limit / 4, 1.0)):
            with self._state:
                waited = time.monotonic() - self._waiting_since if self._pending else 0.0
            if waited > limit and self._greeting.done():
                return False
        return True

    def _fail(self, what: str, more: str = "") -> None:
        with self._state:
            self._error = ZooError(f"{self.name} (process {self._process.pid}) {what}{self._settings.hint}{more}")
            pending, self._pending = self._pending, {}
        for future in pending.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(self._error)


def _start(environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    if not HANDS_ON_DESCRIPTORS:
        raise ZooError(
            "this system does not give a process the connection that a session in it needs. Leave out `workers`, and choose a device "
            "that computes in the same process"
        )
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo.scoring.child", str(theirs.fileno())],
            env={**os.environ, **SWITCHES, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2 if is_open(2) else subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C reaches the run alone, from the first import on
        )
    return process, ours


def _cause(code: int | None) -> str:
    if code is None:
        return "it has closed the connection"
    return f"it {ending(code)}"


def portable(error: BaseException) -> BaseException:
    """The error itself if it comes through a pipe, else one that says the same: many classes are not made of their message alone."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # made here
    except Exception:
        return ZooError(str(error)) if isinstance(error, ZooError) else RuntimeError(f"{type(error).__name__}: {error}")
    return error


def unsendable(error: BaseException) -> PluginError:
    """What the parent is told about a result that cannot be sent to it."""
    return PluginError(f"the session gave what cannot be sent on: {type(error).__name__}: {error}")
