"""``tvm.runtime``"""

from zoo_sdaa.testing import compiler
from zoo_sdaa.testing.machine import machine

with compiler.as_in(globals(), "tvm.runtime"):
    from zoo_sdaa.testing.compiler import save_engine

    if machine().generation == 1 or machine().both:
        from zoo_sdaa.testing.compiler import create_engine, from_numpy

__all__ = ["create_engine", "from_numpy", "save_engine"]
