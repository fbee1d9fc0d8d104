"""The two generations of TecoInference behind one small adapter each.

An engine lies on every SPA of the process's card. ``run`` takes arrays in graph order and gives copies: the runtime's output memory is
shared between calls, so outputs are copied before the next call is made.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.api import ZooError
from zoo_sdaa import runtime

Arrays = Mapping[str, NDArray[Any]]
DEVICE_TYPE = "sdaa"


class Context(Protocol):
    """An engine ready to run."""

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        """One call: inputs in graph order, outputs in graph order, owned by the caller."""
        ...

    def device_seconds(self) -> float | None:
        """Seconds of device time since the context was made, by the runtime's counter; None where it has none."""
        ...

    def release(self) -> None:
        """Give back context and engine, in this order."""
        ...


class Generation(Protocol):
    """What differs between the generations."""

    @property
    def number(self) -> int: ...

    @property
    def needs(self) -> Sequence[str]:
        """What a run cannot do without, checked when the runtime is loaded."""
        ...

    def engine(self, library: Any) -> Any: ...

    def engine_file(self, path: Path) -> Any: ...

    def save(self, library: Any, path: Path) -> None: ...

    def context(self, engine: Any, *, synchronous: bool, spa: int | None) -> Context: ...


class Generation1:
    """The module ``tvm`` alone."""

    number = 1
    needs = ("tvm.runtime.create_engine", "tvm.runtime.save_engine", "tvm.runtime.from_numpy", "tvm.device")

    def engine(self, library: Any) -> Any:
        return runtime.call("tvm.runtime.create_engine", library, DEVICE_TYPE)

    def engine_file(self, path: Path) -> Any:
        return runtime.call("tvm.runtime.create_engine", str(path), DEVICE_TYPE)

    def save(self, library: Any, path: Path) -> None:
        runtime.call("tvm.runtime.save_engine", library, str(path))

    def context(self, engine: Any, *, synchronous: bool, spa: int | None) -> Context:
        return OneSpa(engine, spa or 0) if synchronous else AllSpas(engine)


class Generation2:
    """``tecoinference`` beside ``tvm``."""

    number = 2
    needs = ("tecoinference.Engine", "tecoinference.EngineOptions")

    def engine(self, library: Any) -> Any:
        return self._engine(bytes(library))

    def engine_file(self, path: Path) -> Any:
        return self._engine(str(path))

    def _engine(self, source: bytes | str) -> Any:
        return runtime.call("tecoinference.Engine", source, runtime.call("tecoinference.EngineOptions", None))

    def save(self, library: Any, path: Path) -> None:
        if hasattr(runtime.attribute("tvm.runtime"), "save_engine"):
            runtime.call("tvm.runtime.save_engine", library, str(path))
        else:
            path.write_bytes(bytes(library))

    def context(self, engine: Any, *, synchronous: bool, spa: int | None) -> Context:
        return Synchronous2(engine) if synchronous else Asynchronous2(engine)


class _Held:
    """A context and its engine, released once and in order."""

    needs: Sequence[str] = ()
    """The context's methods that a run cannot do without."""

    def __init__(self, engine: Any) -> None:
        self._engine: Any = engine
        self._context: Any = None
        try:
            self._context = runtime.invoke(engine, "engine.create_context")
            for name in self.needs:
                runtime.method(self._context, f"context.{name}")
            self._start()
        except BaseException:
            self.release()
            raise

    def _start(self) -> None:
        """Prepare the context for its first run."""

    def release(self) -> None:
        held = [("context.release", self._context), ("engine.release", self._engine)]
        self._context = self._engine = None
        # Looked up before either is called: an engine must not be released under a context that cannot be.
        releases = [self._releasing(owner, label) for label, owner in held if owner is not None]
        with contextlib.ExitStack() as stack:  # it runs the last first, and all of them although one fails
            for release in reversed(releases):
                stack.callback(release)

    def _releasing(self, owner: Any, label: str) -> Callable[[], Any]:
        runtime.method(owner, label)
        return functools.partial(runtime.invoke, owner, label)


class _Timed(_Held):
    """Generation 1 counts the device's time from ``start_timing`` on, one entry an SPA, in milliseconds."""

    def _start(self) -> None:
        runtime.invoke(self._context, "context.start_timing")

    def device_seconds(self) -> float | None:
        return float(max(runtime.invoke(self._context, "context.get_infer_time"))) / 1e3


class AllSpas(_Timed):
    """Generation 1, a call split over all SPAs."""

    needs = ("run_async", "start_timing", "get_infer_time", "release")

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        tensors = [runtime.call("tvm.runtime.from_numpy", np.ascontiguousarray(array)) for array in inputs.values()]
        future = runtime.invoke(self._context, "context.run_async", tensors)
        return [_copy(runtime.invoke(output, "output.numpy")) for output in runtime.invoke(future, "future.get")]


class OneSpa(_Timed):
    """Generation 1 on the SPA ``index`` alone."""

    needs = ("set_input", "executor_run", "get_num_outputs", "get_output", "start_timing", "get_infer_time", "release")

    def __init__(self, engine: Any, index: int) -> None:
        self._index = index
        super().__init__(engine)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        device = runtime.call("tvm.device", DEVICE_TYPE, self._index)
        for name, array in inputs.items():
            runtime.invoke(self._context, "context.set_input", name, np.ascontiguousarray(array), device)
        runtime.invoke(self._context, "context.executor_run", dev=device)
        runtime.invoke(device, "device.sync")
        count = runtime.invoke(self._context, "context.get_num_outputs")
        return [_copy(_array(runtime.invoke(self._context, "context.get_output", i, device))) for i in range(count)]


class _Untimed(_Held):
    """Generation 2, whose published interface has neither a time counter nor a release."""

    def device_seconds(self) -> float | None:
        return None

    def _releasing(self, owner: Any, label: str) -> Callable[[], Any]:
        # Not published for this generation, so it is called where it exists; dropping the object is what remains.
        return super()._releasing(owner, label) if hasattr(owner, "release") else lambda: None


class Asynchronous2(_Untimed):
    """Generation 2, a call split over all SPAs."""

    needs = ("run_async",)

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        arrays = [np.ascontiguousarray(array) for array in inputs.values()]
        future = runtime.invoke(self._context, "context.run_async", arrays)
        return [_copy(runtime.invoke(output, "output.numpy")) for output in runtime.invoke(future, "future.get")]


class Synchronous2(_Untimed):
    """Generation 2, call after call."""

    needs = ("set_input", "executor_run", "get_num_outputs", "get_output")

    def run(self, inputs: Arrays) -> list[NDArray[Any]]:
        for name, array in inputs.items():
            runtime.invoke(self._context, "context.set_input", name, np.ascontiguousarray(array))
        runtime.invoke(self._context, "context.executor_run")
        count = runtime.invoke(self._context, "context.get_num_outputs")
        return [_copy(_array(runtime.invoke(self._context, "context.get_output", i))) for i in range(count)]


def generation(number: int | None, *, spa: int | None = None) -> Generation:
    """The adapter asked for, or the newest one that can be imported; its modules are loaded and checked. Raises ZooError."""
    chosen: Generation = Generation2() if (number or runtime.newest_generation() or 1) == 2 else Generation1()
    if chosen.number == 2 and spa is not None:
        raise ZooError(
            "generation 2 of TecoInference has no way to name an SPA: leave the device option spa out, or ask for generation=1"
        )
    runtime.load(chosen.number)
    # A version that lacks something says so now, and not after minutes of compiling.
    for needed in chosen.needs:
        runtime.attribute(needed)
    return chosen


def _array(output: Any) -> Any:
    """``get_output`` gives a numpy array in generation 2; generation 1 does not say, and a tensor of its own has ``numpy()``."""
    return output.numpy() if hasattr(output, "numpy") else output


def _copy(output: Any) -> NDArray[Any]:
    return np.array(output, copy=True)
