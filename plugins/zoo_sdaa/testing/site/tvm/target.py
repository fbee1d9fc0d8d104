"""``tvm.target``"""

from zoo_sdaa.testing import compiler

with compiler.as_in(globals(), "tvm.target"):
    from zoo_sdaa.testing.compiler import Target

__all__ = ["Target"]
