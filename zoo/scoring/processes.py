"""Several processes that each hold a session, as one session: batches go to whichever has the fewest.

Every worker is bound to its own share of the CPUs, so that on a machine of many cores, or of several memory banks, none of them disturbs
another. Each loads the weights for itself. A worker that dies fails the run with an error that names it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from typing import Any

from zoo.cpus import usable_threads
from zoo.errors import PluginError, ZooError
from zoo.types import Artifact, Session, SessionOptions, Tensors

Opener = Callable[[Artifact, SessionOptions], Session]
"""Opens a session in a worker; it is pickled, so it is a function of a module or a partial of one."""

CLOSING_SECONDS = 10.0
"""A worker that has not ended by itself so long after it was told to is killed."""


def open_on(device: str, artifact: Artifact, options: SessionOptions) -> Session:
    """The session of an installed device, by name."""
    from zoo.registry.catalogue import Catalogue

    return Catalogue.installed().device(device).open(artifact, options)


class Workers:
    """``count`` worker processes behind the interface of one session."""

    def __init__(self, opener: Opener, artifact: Artifact, options: SessionOptions, count: int) -> None:
        threads = options.threads or usable_threads()
        if count > threads:
            raise ZooError(
                f"--workers {count}: this process may use {threads} threads, and a worker needs one at least"
            )
        share = replace(options, threads=threads // count)
        self._workers: list[Worker] = []
        try:
            for number, cpus in enumerate(shares(count)):
                self._workers.append(Worker(f"{number + 1} of {count}", (opener, artifact, share, cpus)))
            # All load at the same time; then each is asked for what its session wants.
            (self.input_names, rule), *_ = [worker.ready() for worker in self._workers]
        except BaseException:
            self.close()
            raise
        self.shape_rule = replace(rule, parallel_batches=rule.parallel_batches * count)

    def submit(self, inputs: Tensors) -> Future[Tensors]:
        return min(self._workers, key=lambda worker: worker.busy).submit(inputs)

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.wait()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Worker:
    """One worker process, seen from the run."""

    def __init__(self, name: str, setup: tuple[Opener, Artifact, SessionOptions, Sequence[int]]) -> None:
        self.name = name
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", "zoo.scoring.processes", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the run's to hear, from the first import on
        )
        theirs.close()  # so that the pipe ends here when the worker ends
        self._pending: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._error: ZooError | None = None
        self._greeting: Future[Any] = self._ask(setup)
        threading.Thread(target=self._listen, name=f"worker-{name}", daemon=True).start()

    @property
    def busy(self) -> int:
        """Batches it has not answered."""
        return len(self._pending)

    def ready(self) -> Any:
        """Input names and shape rule of its session, when that is open. Raises what opening it raised."""
        return self._greeting.result()

    def submit(self, inputs: Tensors) -> Future[Tensors]:
        return self._ask(dict(inputs))

    def stop(self) -> None:
        """Tell it to end. Harmless when repeated, or when it has died."""
        with contextlib.suppress(OSError), self._lock:
            self._pipe.send(None)

    def wait(self) -> None:
        """Wait until it has ended; one that does not is killed."""
        try:
            self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, content: object) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            number = next(self._numbers)
            self._pending[number] = future
            with contextlib.suppress(OSError):  # it has died: _listen hears of that, and says so to everybody who waits
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
            self._fail(f"has died: {_cause(self._process.wait())}")
        except Exception as error:  # whatever it is, nobody may go on waiting
            self._fail(f"gave an answer that cannot be read: {type(error).__name__}: {error}")

    def _fail(self, what: str) -> None:
        with self._lock:
            self._error = ZooError(f"worker {self.name} (process {self._process.pid}) {what}")
            pending, self._pending = self._pending, {}
        for future in pending.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(self._error)


def shares(count: int) -> list[list[int]]:
    """The CPUs this process may use, dealt to ``count`` workers in runs of neighbours; empty lists where that cannot be told."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(count)]
    cpus = sorted(os.sched_getaffinity(0))
    bounds = [len(cpus) * number // count for number in range(count + 1)]
    return [cpus[start:end] for start, end in itertools.pairwise(bounds)]


def _cause(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = "; the system kills what takes too much memory, so try fewer --workers" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"


def serve(pipe: Connection) -> None:
    """The life of a worker: open a session, then compute what comes, until it is told to end or the run is gone."""
    sending = threading.Lock()

    def answer(number: int, error: BaseException | None, content: object = None) -> None:
        with sending:
            pipe.send((number, error and _portable(error), content))

    number, (opener, artifact, options, cpus) = pipe.recv()
    try:
        if cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus)
        session = opener(artifact, options)
    except ZooError as error:
        return answer(number, error)
    except Exception as error:
        return answer(number, ZooError(f"{type(error).__name__}: {error}"))

    def done(number: int, future: Future[Tensors]) -> None:
        if future.cancelled():
            return  # the session is closing: the run wants no more
        error = future.exception()
        try:
            answer(number, error, None if error else dict(future.result()))
        except ConnectionError:
            pass  # the run is gone
        except Exception as fault:
            answer(number, PluginError(f"the session gave what cannot be sent on: {type(fault).__name__}: {fault}"))

    with session:
        answer(number, None, (list(session.input_names), session.shape_rule))
        while (message := pipe.recv()) is not None:
            number, inputs = message
            try:
                future = session.submit(inputs)
            except Exception as error:
                answer(number, error)
            else:
                future.add_done_callback(lambda future, number=number: done(number, future))
    return None


def _portable(error: BaseException) -> BaseException:
    """The error itself where it comes through a pipe, else one that says the same: many classes are not made of their message alone."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # made here
    except Exception:
        return ZooError(str(error)) if isinstance(error, ZooError) else RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    with contextlib.suppress(EOFError, ConnectionError):  # the run is gone
        serve(Connection(int(sys.argv[1])))
