"""zoo's fake of TecoInference's ``tvm``: see ``zoo_sdaa.testing``. It is on no path unless a test puts it there."""

from zoo_sdaa.testing import versions
from zoo_sdaa.testing.machine import chat, machine

from . import relay, runtime, target, transform

__version__ = machine().version
chat(f"| tvm | {__version__} |")
__all__ = ["device", "relay", "runtime", "target", "transform"]

with versions.as_in(globals(), "tvm"):
    from zoo_sdaa.testing.tensors import Device as device  # noqa: N813  # a function there
