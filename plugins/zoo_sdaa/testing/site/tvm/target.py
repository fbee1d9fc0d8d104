"""``tvm.target``"""

from zoo_sdaa.testing import versions

with versions.as_in(globals(), "tvm.target"):
    from zoo_sdaa.testing.compiler import Target

__all__ = ["Target"]
