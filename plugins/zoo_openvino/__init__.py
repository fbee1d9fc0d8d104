"""The CPU, through OpenVINO: bfloat16 and int8 weights where the processor computes in them."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.api import Device, hookimpl
from zoo_openvino.device import OpenVinoDevice


@hookimpl
def zoo_devices() -> Iterable[Device]:
    return [OpenVinoDevice()]
