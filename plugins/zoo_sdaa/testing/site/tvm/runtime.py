"""``tvm.runtime``"""

from zoo_sdaa.testing import versions
from zoo_sdaa.testing.machine import machine

with versions.as_in(globals(), "tvm.runtime"):
    from zoo_sdaa.testing.engine import save_engine

    if machine().generation == 1 or machine().both:
        from zoo_sdaa.testing.engine import create_engine
        from zoo_sdaa.testing.tensors import from_numpy

__all__ = ["create_engine", "from_numpy", "save_engine"]
