"""``tvm.relay``"""

from zoo_sdaa.testing import versions

from . import frontend, transform

__all__ = ["build", "frontend", "transform"]

with versions.as_in(globals(), "tvm.relay"):
    from zoo_sdaa.testing.compiler import build
