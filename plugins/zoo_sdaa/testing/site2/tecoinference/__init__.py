"""zoo's fake of TecoInference's second generation: see ``zoo_sdaa.testing``. It is on no path unless a test puts it there."""

from zoo_sdaa.testing import versions
from zoo_sdaa.testing.machine import chat, machine

__version__ = machine().version
chat(f"| tecoinference | {__version__} |")

with versions.as_in(globals(), "tecoinference"):
    from zoo_sdaa.testing.engine import Engine2 as Engine
    from zoo_sdaa.testing.engine import EngineOptions

__all__ = ["Engine", "EngineOptions"]
