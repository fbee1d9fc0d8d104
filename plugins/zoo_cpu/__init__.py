"""The CPU, through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.api import Device, hookimpl
from zoo_cpu.device import CpuDevice


@hookimpl
def zoo_devices() -> Iterable[Device]:
    return [CpuDevice()]
