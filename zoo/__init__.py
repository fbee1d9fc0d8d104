"""Run rerankers from a model zoo on whatever device is at hand.

Plugin authors need three names from here: ``hookimpl`` marks an implementation of a hook described in
``zoo.registry.hookspecs``; ``Reranker`` is the base class of an architecture; ``ZooError`` is the one exception that is
shown to a user without a traceback.
"""

from zoo.errors import ZooError
from zoo.registry.hookspecs import Reranker, hookimpl

__version__ = "0.1.0"
__all__ = ["Reranker", "ZooError", "__version__", "hookimpl"]
