"""``tvm.relay``"""

from zoo_sdaa.testing import compiler

from . import frontend, transform

__all__ = ["build", "frontend", "transform"]

with compiler.as_in(globals(), "tvm.relay"):
    from zoo_sdaa.testing.compiler import build
