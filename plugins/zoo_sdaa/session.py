"""An engine on one card as a session: one thread owns the runtime, calls are queued, results come in order."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # builtins.TimeoutError only from Python 3.11 on
from typing import Any

from zoo.api import ShapeRule, Tensors, ZooError
from zoo_sdaa.contexts import Context
from zoo_sdaa.engine_shapes import EngineShapes

logger = logging.getLogger("zoo.sdaa")

CLOSING = 5.0
"""Seconds that closing waits for the batch that is running: a hung card must not hold up whoever pressed Ctrl-C."""


class RuntimeThread:
    """Runs everything that touches the runtime, in order, on one thread: a driver may bind its state to the thread that made it.

    It is a daemon, because a card that is lost may never answer, and a program must end all the same.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=f"zoo-{name}", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Queue ``work``."""
        future: Future[Any] = Future()
        self._jobs.put((future, work))
        return future

    def cancel_waiting(self) -> None:
        """Cancel what has not begun."""
        with contextlib.suppress(queue.Empty):
            while True:
                if job := self._jobs.get_nowait():
                    job[0].cancel()

    def stop(self) -> None:
        """End the thread after what is queued."""
        self._jobs.put(None)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # whoever waits for the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)


class SdaaSession:
    """One engine on one card."""

    def __init__(self, name: str, thread: RuntimeThread, context: Context, shapes: EngineShapes) -> None:
        self._name, self._thread, self._shapes = name, thread, shapes
        self._context: Context | None = context
        self.on_close: Callable[[], None] = _nothing
        self._closed = self._failed = False
        self._seconds: float | None = None
        self.input_names: Sequence[str] = list(shapes.inputs)
        self.shape_rule: ShapeRule = shapes.rule

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        if self._closed:
            raise ZooError("this session is closed")
        ordered = {name: inputs[name] for name in self.input_names}
        for name, array in ordered.items():
            if array.shape != (self.shape_rule.rows, self.shape_rule.length) or array.dtype != "int64":
                raise ZooError(
                    f"{self._name} was given '{name}' of shape {array.shape} and type {array.dtype}; its engine takes int64 of shape "
                    f"({self.shape_rule.rows}, {self.shape_rule.length})"
                )
        wanted = self._shapes.outputs if outputs is None else outputs
        for name in wanted:
            if name not in self._shapes.outputs:
                raise ZooError(f"{self._name} has no output '{name}'; it has {', '.join(self._shapes.outputs)}")
        return self._thread.submit(lambda: self._run(ordered, wanted))

    def _run(self, inputs: Tensors, wanted: Sequence[str]) -> Tensors:
        assert self._context is not None
        try:
            arrays = self._context.run(inputs)
        except ZooError as error:
            self._failed = True
            raise ZooError(f"{self._name} failed: {error}") from error
        by_name = dict(zip(self._shapes.outputs, arrays, strict=True))
        return {name: by_name[name] for name in wanted}

    @property
    def device_seconds(self) -> float | None:
        """Seconds of device time so far by the runtime's own counter; None if it has none."""
        if not self._closed:
            self._seconds = self._thread.submit(self._read_counter).result()
        return self._seconds

    def _read_counter(self) -> float | None:
        assert self._context is not None
        return self._context.device_seconds()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._thread.cancel_waiting()
        releasing = self._thread.submit(self._release)
        self._thread.stop()
        try:
            releasing.result(CLOSING)
        except FutureTimeout:
            logger.warning(
                "%s has not finished its batch within %.0f s: its context and engine are not released",
                self._name,
                CLOSING,
            )
        except ZooError as error:
            logger.warning("%s was not released cleanly: %s", self._name, error)
        self.on_close()

    def _release(self) -> None:
        context, self._context = self._context, None
        assert context is not None
        if not self._failed:  # a card that failed may not tell its time, and is released all the same
            self._seconds = context.device_seconds()
        context.release()

    def __enter__(self) -> SdaaSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _nothing() -> None:
    """What is left to do when a session is closed, unless its opener has more."""
