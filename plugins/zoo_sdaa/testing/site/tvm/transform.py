"""``tvm.transform``"""

from zoo_sdaa.testing import versions

with versions.as_in(globals(), "tvm.transform"):
    from zoo_sdaa.testing.compiler import PassContext, Sequential

__all__ = ["PassContext", "Sequential"]
