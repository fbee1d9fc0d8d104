"""The two generations of TecoInference behind one small adapter each: how engines are made, saved and loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from zoo.api import ZooError
from zoo_sdaa import runtime
from zoo_sdaa.contexts import (
    DEVICE_TYPE,
    Asynchronous1,
    Asynchronous2,
    Context,
    Synchronous1,
    Synchronous2,
)

logger = logging.getLogger("zoo.sdaa")


class Adapter(Protocol):
    """What differs between the generations."""

    @property
    def generation(self) -> int: ...

    @property
    def needs(self) -> Sequence[str]:
        """What a run cannot do without, checked when the runtime is loaded."""
        ...

    def engine(self, library: Any) -> Any: ...

    def engine_file(self, path: Path) -> Any: ...

    def save(self, library: Any, path: Path) -> None: ...

    def context(self, engine: Any, outputs: int, *, synchronous: bool, spa: int | None) -> Context:
        """``outputs`` is how many the engine gives."""
        ...


class Generation1:
    """The module ``tvm`` alone."""

    generation = 1
    needs = ("tvm.runtime.create_engine", "tvm.runtime.save_engine", "tvm.runtime.from_numpy", "tvm.device")

    def engine(self, library: Any) -> Any:
        return runtime.call("tvm.runtime.create_engine", library, DEVICE_TYPE)

    def engine_file(self, path: Path) -> Any:
        return runtime.call("tvm.runtime.create_engine", str(path), DEVICE_TYPE)

    def save(self, library: Any, path: Path) -> None:
        runtime.call("tvm.runtime.save_engine", library, str(path))

    def context(self, engine: Any, outputs: int, *, synchronous: bool, spa: int | None) -> Context:
        return Synchronous1(engine, outputs, spa or 0) if synchronous else Asynchronous1(engine, outputs)


class Generation2:
    """``tecoinference``, and beside it ``tvm`` to compile."""

    generation = 2
    needs = ("tecoinference.Engine", "tecoinference.EngineOptions")

    def engine(self, library: Any) -> Any:
        return self._engine(bytes(library))

    def engine_file(self, path: Path) -> Any:
        return self._engine(str(path))

    def _engine(self, source: bytes | str) -> Any:
        return runtime.call("tecoinference.Engine", source, runtime.call("tecoinference.EngineOptions", None))

    def save(self, library: Any, path: Path) -> None:
        if runtime.has("tvm.runtime.save_engine"):
            runtime.call("tvm.runtime.save_engine", library, str(path))
        else:
            path.write_bytes(bytes(library))

    def context(self, engine: Any, outputs: int, *, synchronous: bool, spa: int | None) -> Context:
        return Synchronous2(engine, outputs) if synchronous else Asynchronous2(engine, outputs)


def load_adapter(generation: int | None, *, spa: int | None = None) -> Adapter:
    """The generation asked for or, for None, the best that can be imported; its modules are loaded and checked. Raises ZooError."""
    wanted = runtime.installed_generations() or [1] if generation is None else [generation]
    if generation is None and spa is not None:
        wanted = [number for number in wanted if number == 1] or wanted
    chosen = _first_that_loads(wanted)
    if chosen.generation == 2 and spa is not None:
        raise ZooError(
            "generation 2 of TecoInference has no way to name an SPA: leave the device option spa out, or give generation=1"
        )
    # A version that lacks something is reported now, and not after minutes of compiling.
    for needed in chosen.needs:
        runtime.attribute(needed)
    return chosen


def _first_that_loads(generations: Sequence[int]) -> Adapter:
    first, *others = generations
    try:
        runtime.load(first)
    except ZooError as error:
        if not others:
            raise
        logger.warning("generation %d of TecoInference is not used: %s", first, error)
        return _first_that_loads(others)
    return Generation2() if first == 2 else Generation1()
