"""Sessions in child processes: one of them as a session, and several as one session, where batches go to whichever has the fewest.

Workers on a CPU are each bound to a share of the CPUs, so that on a machine of many cores, or of several memory banks, none of them
disturbs another. A device whose runtime prints, crashes or sees one card a process opens its sessions here as well. A process that dies
fails the run with an error that names it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

from zoo.cpus import usable_threads
from zoo.errors import PluginError, ZooError
from zoo.quiet_imports import SWITCHES
from zoo.types import Artifact, Session, SessionOptions, ShapeRule, Tensors

logger = logging.getLogger(__name__)

Opener = Callable[[Artifact, SessionOptions], Session]
"""Opens a session in a child process; it is pickled, so it is a function of a module or a partial of one."""

CLOSING_SECONDS = 10.0
"""A process that has not ended by itself so long after it was told to is killed."""


def open_on(device: str, artifact: Artifact, options: SessionOptions) -> Session:
    """The session of an installed device, by name."""
    from zoo.registry.catalogue import Catalogue

    return Catalogue.installed().device(device).open(artifact, options)


@dataclass(frozen=True, kw_only=True)
class ChildSettings:
    """How a session is opened in a process of its own.

    ``name`` is what messages call it. ``environment`` is added to the process's environment variables. ``hint`` is the end of the
    message if it dies. ``closing_seconds`` is how long it may take to end after it was told to.
    """

    name: str
    opener: Opener
    artifact: Artifact
    options: SessionOptions
    cpus: Sequence[int] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    closing_seconds: float = CLOSING_SECONDS


class SessionProcess:
    """A session in a process of its own. Construction starts it; ``wait_until_open`` raises what opening raised there.

    What the process prints to stdout goes to stderr, so that results stay clean. It does not hear Ctrl-C: the run decides when
    it ends.
    """

    input_names: Sequence[str]
    shape_rule: ShapeRule

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._pending: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._error: ZooError | None = None
        self._closed = False
        self._process, self._pipe = _start(settings.environment)
        level = logging.getLogger("zoo").level
        self._greeting = self._ask(
            ("open", settings.name, settings.opener, settings.artifact, settings.options, list(settings.cpus), level)
        )
        self._listener = threading.Thread(target=self._listen, name=f"zoo-{settings.name}", daemon=True)
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
        if self._closed:
            raise ZooError("this session is closed")
        return self._ask(("batch", dict(inputs), outputs))

    def stop(self) -> None:
        """Tell it to end, without waiting. Harmless when repeated, or when it has died."""
        self._closed = True
        if not self._greeting.done():
            self._process.kill()  # it opens still, for minutes perhaps; what it keeps is written whole or not at all
        with contextlib.suppress(OSError), self._lock:
            self._pipe.send(None)

    def wait(self) -> None:
        """Wait until it has ended; one that does not is killed."""
        try:
            self._process.wait(self._settings.closing_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not end and is killed; what it held is not released", self._settings.name)
            self._process.kill()
            self._process.wait()
        if self._listener is not threading.current_thread():
            self._listener.join(self._settings.closing_seconds)

    def close(self) -> None:
        self.stop()
        self.wait()

    def __enter__(self) -> SessionProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, content: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            number = next(self._numbers)
            self._pending[number] = future
            with contextlib.suppress(OSError):  # it has died: _listen notices, and fails every waiting future
                self._pipe.send((number, content))
        return future

    def _listen(self) -> None:
        try:
            while True:
                number, error, answer = self._pipe.recv()
                future = self._pending.pop(number)
                if future.set_running_or_notify_cancel():
                    future.set_exception(error) if error else future.set_result(answer)
        except (EOFError, OSError):
            self._fail(f"has died: {_cause(self._process.wait())}{self._settings.hint}")
        except Exception as error:  # whatever it is, nobody may go on waiting
            self._fail(f"gave an answer that cannot be read: {type(error).__name__}: {error}")

    def _fail(self, what: str) -> None:
        with self._lock:
            self._error = ZooError(f"{self._settings.name} (process {self._process.pid}) {what}")
            pending, self._pending = self._pending, {}
        for future in pending.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(self._error)


class Processes:
    """Several session processes as one session: each batch goes to the one with the least to do."""

    def __init__(self, children: Sequence[SessionProcess]) -> None:
        self._children = children
        rules = {child.shape_rule for child in children}
        if len(rules) > 1:
            said = ", ".join(f"{child.shape_rule.rows} rows" for child in children)
            raise ZooError(f"the sessions do not take the same batches ({said}): choose devices of one kind")
        self.input_names = children[0].input_names
        rule = children[0].shape_rule
        self.shape_rule = replace(rule, parallel_batches=rule.parallel_batches * len(children))
        self._closed = False

    @classmethod
    def opened(cls, settings: Sequence[ChildSettings], *, one_first: bool = False) -> Processes:
        """All of them, opened at the same time; ``one_first`` lets the first finish before the others begin.

        Raises ZooError, and leaves no process behind, if one cannot be opened.
        """
        children: list[SessionProcess] = []
        try:
            for number, each in enumerate(settings):
                children.append(SessionProcess(each))
                if one_first and not number:
                    children[0].wait_until_open()
            for child in children:
                child.wait_until_open()
            return cls(children)
        except BaseException:
            _end(children)
            raise

    @classmethod
    def workers(cls, opener: Opener, artifact: Artifact, options: SessionOptions, count: int) -> Processes:
        """``count`` workers on shares of this process's threads and CPUs."""
        threads = options.threads or usable_threads()
        if count > threads:
            raise ZooError(
                f"{count} workers need a thread each, and this process may use {threads}: use fewer `workers`"
            )
        share = replace(options, threads=threads // count)
        return cls.opened(
            [
                ChildSettings(
                    name=f"worker {number + 1} of {count}", opener=opener, artifact=artifact, options=share, cpus=cpus
                )
                for number, cpus in enumerate(shares(count))
            ]
        )

    @property
    def device_seconds(self) -> float | None:
        """The busiest process's device time; None if none has a counter."""
        if self._closed:
            return None
        seconds = [child.device_seconds for child in self._children]
        return max((each for each in seconds if each is not None), default=None)

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        return min(self._children, key=lambda child: child.busy).submit(inputs, outputs)

    def close(self) -> None:
        self._closed = True
        _end(self._children)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _end(children: Sequence[SessionProcess]) -> None:
    for child in children:
        child.stop()
    for child in children:
        child.wait()


def _start(environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo.scoring.child", str(theirs.fileno())],
            env={**os.environ, **SWITCHES, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2 if _is_open(2) else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the run's to hear, from the first import on
        )
    return process, Connection(ours.detach())


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def shares(count: int) -> list[list[int]]:
    """The CPUs this process may use, dealt to ``count`` workers in runs of neighbours; empty lists if the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(count)]
    cpus = sorted(os.sched_getaffinity(0))
    bounds = [len(cpus) * number // count for number in range(count + 1)]
    return [cpus[start:end] for start, end in itertools.pairwise(bounds)]


def _cause(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    memory = ", as the system does to processes that take too much memory" if code == -signal.SIGKILL else ""
    return f"it was ended by {signal.Signals(-code).name}{memory}"


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
