"""``tvm.transform``"""

from zoo_sdaa.testing import compiler

with compiler.as_in(globals(), "tvm.transform"):
    from zoo_sdaa.testing.compiler import PassContext, Sequential

__all__ = ["PassContext", "Sequential"]
