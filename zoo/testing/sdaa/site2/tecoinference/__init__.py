"""zoo's fake of TecoInference's second generation: see ``zoo.testing.sdaa``. It is on no path unless a test puts it there."""

from zoo.testing.sdaa import compiler
from zoo.testing.sdaa.machine import machine

__version__ = machine().version

with compiler.as_in(globals(), "tecoinference"):
    from zoo.testing.sdaa.compiler import Engine2 as Engine
    from zoo.testing.sdaa.compiler import EngineOptions

__all__ = ["Engine", "EngineOptions"]
