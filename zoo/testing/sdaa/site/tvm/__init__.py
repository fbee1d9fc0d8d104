"""zoo's fake of TecoInference's ``tvm``: see ``zoo.testing.sdaa``. It is on no path unless a test puts it there."""

from zoo.testing.sdaa import compiler
from zoo.testing.sdaa.machine import machine

from . import relay, runtime, target, transform

__version__ = machine().version
__all__ = ["device", "relay", "runtime", "target", "transform"]

with compiler.as_in(globals(), "tvm"):
    from zoo.testing.sdaa.engine import Device as device  # noqa: N813  # a function there
