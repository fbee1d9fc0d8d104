"""Engines of the fake runtime: made from a compiled library or a file, saved, released."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_sdaa.testing.context import Context, Context1, Context2
from zoo_sdaa.testing.graph import MAGIC, Library, Program
from zoo_sdaa.testing.machine import card, chat, demand, engines, machine, record
from zoo_sdaa.testing.versions import Versioned


class Engine(Versioned):
    """A compiled model on every SPA that the process uses."""

    def __init__(self, content: bytes, generation: int) -> None:
        self._program = Program(content)
        self._generation = generation
        self._contexts: list[Context] = []
        self._released = False
        engines()
        if card() in machine().busy:
            raise RuntimeError("sdaa: error 2, out of memory")
        record("engine", id=id(self), card=card(), generation=generation, header=self._program.header)

    def create_context(self) -> Context:
        demand(not self._released, "create_context of an engine that was released")
        made = (Context1 if self._generation == 1 else Context2)(self._program)
        self._contexts.append(made)
        record("context", id=id(made))
        return made

    def release(self) -> None:
        demand(not self._released, "an engine was released twice")
        alive = [context for context in self._contexts if not context._released]
        demand(not alive, "an engine was released before its context")
        self._released = True
        chat("engine released")
        record("engine released", id=id(self))


def create_engine(source: Library | str, kind: str) -> Engine:
    """``tvm.runtime.create_engine`` (generation 1)"""
    demand(kind == "sdaa", f"there is no device type '{kind}'")
    return Engine(bytes(source) if isinstance(source, Library) else read(source), 1)


def save_engine(library: Library, path: str) -> None:
    """``tvm.runtime.save_engine``"""
    demand(isinstance(library, Library), f"save_engine was given {type(library).__name__}")
    Path(path).write_bytes(bytes(library))


class EngineOptions:
    """``tecoinference.EngineOptions`` (generation 2)"""

    def __init__(self, config: Mapping[str, Any] | None) -> None:
        self.config = config


class Engine2(Engine):
    """``tecoinference.Engine`` (generation 2)"""

    def __init__(self, source: bytes | str, options: EngineOptions | None = None) -> None:
        demand(isinstance(source, (bytes, str)), f"Engine was given {type(source).__name__}; it takes bytes or a path")
        super().__init__(source if isinstance(source, bytes) else read(source), 2)


def read(path: str) -> bytes:
    """An engine file's content."""
    content = Path(path).read_bytes()
    if not content.startswith(MAGIC):
        raise RuntimeError(f"{path} is not an engine")
    return content
