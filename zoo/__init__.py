"""Run rerankers from a model zoo on whatever device is at hand.

    import zoo

    with zoo.Reranker.open("zoo-reranker-tiny") as reranker:
        print(reranker.rank("what is panda?", ["hi", "The giant panda is a bear species endemic to China."]))

``Reranker`` is the way in for programs. Plugin authors import everything they need from ``zoo.api``; ``hookimpl``, ``Architecture``
and ``ZooError`` are here too. Importing this module imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.errors import ZooError as ZooError
    from zoo.registry.architecture import Architecture as Architecture
    from zoo.registry.markers import hookimpl as hookimpl
    from zoo.reranker import Ranked as Ranked
    from zoo.reranker import Reranker as Reranker
    from zoo.types import Pair as Pair

__version__ = "0.1.0"
__all__ = ["Architecture", "Pair", "Ranked", "Reranker", "ZooError", "__version__", "hookimpl"]

_PLACES = {
    "Architecture": "zoo.registry.architecture",
    "Pair": "zoo.types",
    "Ranked": "zoo.reranker",
    "Reranker": "zoo.reranker",
    "ZooError": "zoo.errors",
    "hookimpl": "zoo.registry.markers",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        import importlib

        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
