"""``tvm.relay``"""

from zoo.testing.sdaa import compiler

from . import frontend, transform

__all__ = ["build", "frontend", "transform"]

with compiler.as_in(globals(), "tvm.relay"):
    from zoo.testing.sdaa.compiler import build
