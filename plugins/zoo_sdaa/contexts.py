"""Engines that are ready to run: what a call is in each generation of TecoInference, and how it is released.

An engine lies on every SPA of the process's card. ``run`` takes arrays in graph order and gives copies: the runtime's output memory is
shared between calls, so each output is copied before anything else is asked of the runtime.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.api import ZooError
from zoo_sdaa import runtime

logger = logging.getLogger("zoo.sdaa")

Arrays = Mapping[str, NDArray[Any]]
DEVICE_TYPE = "sdaa"
COUNTER = ("start_timing", "get_infer_time")
"""The methods of a context that count the device's time. Older runtimes lack them, and none are published for generation 2."""


class Context(Protocol):
    """An engine ready to run."""

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """One call: inputs in graph order, outputs in graph order, owned by the caller."""
        ...

    def device_seconds(self) -> float | None:
        """Seconds of device time since the context was made, by the runtime's counter; None if it has none. Raises nothing."""
        ...

    def release(self) -> None:
        """Give back context and engine, in this order."""
        ...


class _EngineContext:
    """An engine and its context, released once and in order."""

    needs: Sequence[str] = ()
    """The context's methods that a run cannot do without."""
    must_release = True

    def __init__(self, engine: Any, outputs: int) -> None:
        self._engine: Any = engine
        self._outputs = outputs
        self._context: Any = None
        try:
            self._context = runtime.invoke(engine, "engine.create_context")
            for name in self.needs:
                runtime.method(self._context, f"context.{name}")
            self._counts = self._start_counter()
        except BaseException:
            self.release()
            raise

    def _start_counter(self) -> bool:
        """Whether the runtime counts. A run goes on without: times are taken from outside."""
        lacking = [name for name in COUNTER if not hasattr(self._context, name)]
        if lacking:
            logger.info(
                "%s does not count device time (it lacks %s): times are taken from outside",
                runtime.version(),
                ", ".join(lacking),
            )
            return False
        try:
            runtime.invoke(self._context, "context.start_timing")
        except ZooError as error:
            _report_broken_counter(error)
            return False
        return True

    def device_seconds(self) -> float | None:
        if not self._counts:
            return None
        try:
            milliseconds = runtime.invoke(self._context, "context.get_infer_time")
            return float(max(milliseconds)) / 1e3  # one entry an SPA
        except (ZooError, TypeError, ValueError) as error:
            self._counts = False
            _report_broken_counter(error)
            return None

    def release(self) -> None:
        held = [("context.release", self._context), ("engine.release", self._engine)]
        self._context = self._engine = None
        # Looked up before either is called: an engine must not be released under a context that cannot be.
        releases = [self._release_call(owner, label) for label, owner in held if owner is not None]
        with contextlib.ExitStack() as stack:  # it runs the last first, and all of them although one fails
            for release in reversed(releases):
                stack.callback(release)

    def _release_call(self, owner: Any, label: str) -> Callable[[], Any]:
        if not self.must_release and not hasattr(owner, "release"):
            return lambda: None  # dropping the object is what remains
        runtime.method(owner, label)
        return functools.partial(runtime.invoke, owner, label)

    def _fetch(self, future: Any) -> list[NDArray[Any]]:
        """The outputs of a call, by index: nothing promises that what a future gives can be iterated."""
        result = runtime.invoke(future, "future.get")
        if hasattr(result, "__len__") and len(result) != self._outputs:
            raise ZooError(f"future.get gave {len(result)} outputs; the graph has {self._outputs}")
        return [_copy(runtime.item(result, "future.get", number)) for number in range(self._outputs)]

    def _outputs_of(self, *device: Any) -> list[NDArray[Any]]:
        """The outputs that the context holds after a synchronous call."""
        count = int(runtime.invoke(self._context, "context.get_num_outputs"))
        if count != self._outputs:
            raise ZooError(f"context.get_num_outputs gave {count}; the graph has {self._outputs} outputs")
        return [_copy(runtime.invoke(self._context, "context.get_output", number, *device)) for number in range(count)]


class Asynchronous1(_EngineContext):
    """Generation 1, a call split over all SPAs."""

    needs = ("run_async", "release")

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        arrays = _own(inputs)  # held until the outputs are here: a tensor may point into them
        tensors = [runtime.call("tvm.runtime.from_numpy", array) for array in arrays.values()]
        return self._fetch(runtime.invoke(self._context, "context.run_async", tensors))


class Synchronous1(_EngineContext):
    """Generation 1 on the SPA ``index`` alone."""

    needs = ("set_input", "executor_run", "get_num_outputs", "get_output", "release")

    def __init__(self, engine: Any, outputs: int, index: int) -> None:
        self._index = index
        super().__init__(engine, outputs)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        arrays = _own(inputs)
        device = runtime.call("tvm.device", DEVICE_TYPE, self._index)
        for name, array in arrays.items():
            runtime.invoke(self._context, "context.set_input", name, array, device)
        runtime.invoke(self._context, "context.executor_run", dev=device)
        runtime.invoke(device, "device.sync")
        return self._outputs_of(device)


class Asynchronous2(_EngineContext):
    """Generation 2, a call split over all SPAs. No release is published for it: it is called if it is there."""

    needs = ("run_async",)
    must_release = False

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        arrays = _own(inputs)
        return self._fetch(runtime.invoke(self._context, "context.run_async", list(arrays.values())))


class Synchronous2(_EngineContext):
    """Generation 2, call after call."""

    needs = ("set_input", "executor_run", "get_num_outputs", "get_output")
    must_release = False

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        arrays = _own(inputs)
        for name, array in arrays.items():
            runtime.invoke(self._context, "context.set_input", name, array)
        runtime.invoke(self._context, "context.executor_run")
        return self._outputs_of()


def _report_broken_counter(error: Exception) -> None:
    logger.warning("the runtime's counter of device time does not work: %s. Times are taken from outside", error)


def _own(inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Contiguous copies: neither side sees what the other does with its memory."""
    return {name: np.array(array, order="C", copy=True) for name, array in inputs.items()}


def _copy(output: Any) -> NDArray[Any]:
    """An output is a numpy array, or a tensor whose ``numpy()`` may show the runtime's own memory."""
    return np.array(output.numpy() if hasattr(output, "numpy") else output, copy=True)
