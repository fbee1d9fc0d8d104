"""``tvm.runtime``"""

from zoo.testing.sdaa import compiler
from zoo.testing.sdaa.machine import machine

with compiler.as_in(globals(), "tvm.runtime"):
    from zoo.testing.sdaa.compiler import save_engine

    if machine().generation == 1:
        from zoo.testing.sdaa.compiler import create_engine, from_numpy

__all__ = ["create_engine", "from_numpy", "save_engine"]
