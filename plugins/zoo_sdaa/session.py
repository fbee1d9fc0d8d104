"""An engine on one card as a session: one thread owns the runtime, calls are queued, results come in order."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout  # builtins.TimeoutError only from Python 3.11 on
from typing import Any

from zoo.api import ShapeRule, Tensors, ZooError
from zoo_sdaa.engine_shapes import Plan
from zoo_sdaa.runtime_adapters import Context

logger = logging.getLogger("zoo.sdaa")

CLOSING = 60.0
"""Seconds that closing waits for the batch that is running."""


class RuntimeThread:
    """Runs everything that touches the runtime, in order, on one thread: a driver may bind its state to the thread that made it.

    A call that outlasts ``timeout`` fails together with all that wait behind it. The thread is a daemon, because a card that is lost may
    never answer, and a program must end all the same.
    """

    def __init__(self, name: str, timeout: float | None) -> None:
        self.fault: ZooError | None = None
        self._name, self._timeout = name, timeout
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any], bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=f"zoo-{name}", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any], *, watched: bool) -> Future[Any]:
        """Queue ``work``. Fails at once where the card was lost before."""
        future: Future[Any] = Future()
        with self._lock:
            if self.fault is not None:
                future.set_exception(self.fault)
            else:
                self._jobs.put((future, work, watched))
        return future

    def forget(self) -> None:
        """Cancel what waits and has not begun."""
        for future in self._waiting():
            future.cancel()

    def stop(self) -> None:
        self._jobs.put(None)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work, watched = job
            if not future.set_running_or_notify_cancel():
                continue
            timer = threading.Timer(self._timeout, self._lost, [future]) if watched and self._timeout else None
            if timer:
                timer.daemon = True
                timer.start()
            try:
                result = work()
            except BaseException as error:  # whoever waits for the future gets it
                settle(future, error=error)
            else:
                settle(future, result=result)
            finally:
                if timer:
                    timer.cancel()

    def _lost(self, running: Future[Any]) -> None:
        with self._lock:
            self.fault = ZooError(
                f"{self._name} is lost: a batch has not come back for {self._timeout:g} s. Look at its health with teco-smi. Where a batch "
                "may take longer, raise --device-option timeout=SECONDS"
            )
            waiting = [running, *self._waiting()]
        for future in waiting:
            settle(future, error=self.fault)

    def _waiting(self) -> list[Future[Any]]:
        taken: list[Future[Any]] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return taken
            if job is not None:
                taken.append(job[0])


class SdaaSession:
    """One engine on one card."""

    def __init__(self, name: str, thread: RuntimeThread, context: Context, plan: Plan) -> None:
        self._name, self._thread, self._plan = name, thread, plan
        self._context: Context | None = context
        self._closed = False
        self._seconds: float | None = None
        self.input_names: Sequence[str] = plan.inputs
        self.shape_rule: ShapeRule = plan.rule

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
        return self._thread.submit(lambda: self._run(ordered), watched=True)

    def _run(self, inputs: Tensors) -> Tensors:
        assert self._context is not None
        try:
            outputs = self._context.run(inputs)
        except ZooError as error:
            raise ZooError(f"{self._name} failed: {error}") from error
        if len(outputs) != len(self._plan.outputs):
            raise ZooError(f"{self._name} gave {len(outputs)} outputs; its graph has {', '.join(self._plan.outputs)}")
        return dict(zip(self._plan.outputs, outputs, strict=True))

    @property
    def device_seconds(self) -> float | None:
        """Seconds of device time so far by the runtime's own counter; None where it has none, or where the card is lost."""
        if not self._closed and self._thread.fault is None:
            future = self._thread.submit(self._read_clock, watched=True)
            try:
                self._seconds = future.result()
            except ZooError as error:
                logger.warning("%s does not tell its device time: %s", self._name, error)
        return self._seconds

    def _read_clock(self) -> float | None:
        assert self._context is not None
        return self._context.device_seconds()

    def close(self) -> None:
        if self._closed:
            return
        self._thread.forget()
        lost = self._thread.fault is not None
        self._closed = True
        if lost:
            logger.warning("%s does not answer: its context and engine could not be released", self._name)
            return
        releasing = self._thread.submit(self._release, watched=False)
        self._thread.stop()
        try:
            releasing.result(CLOSING)
        except FutureTimeout:
            logger.warning(
                "%s did not finish its batch within %.0f s: its context and engine are not released",
                self._name,
                CLOSING,
            )
        except ZooError as error:
            logger.warning("%s was not released cleanly: %s", self._name, error)

    def _release(self) -> None:
        context, self._context = self._context, None
        assert context is not None
        with contextlib.suppress(ZooError):  # a card that failed may not tell its time, and is released all the same
            self._seconds = context.device_seconds()
        context.release()

    def __enter__(self) -> SdaaSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def settle(future: Future[Any], *, result: Any = None, error: BaseException | None = None) -> None:
    """Give a future its end, unless it has had one: a batch may come back after it was given up."""
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
    except InvalidStateError:
        logger.debug("a batch came back after it was given up")
