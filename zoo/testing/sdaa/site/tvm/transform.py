"""``tvm.transform``"""

from zoo.testing.sdaa import compiler

with compiler.as_in(globals(), "tvm.transform"):
    from zoo.testing.sdaa.compiler import PassContext, Sequential

__all__ = ["PassContext", "Sequential"]
