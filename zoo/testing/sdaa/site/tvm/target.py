"""``tvm.target``"""

from zoo.testing.sdaa import compiler

with compiler.as_in(globals(), "tvm.target"):
    from zoo.testing.sdaa.compiler import Target

__all__ = ["Target"]
