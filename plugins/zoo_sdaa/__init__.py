"""SDAA, Tecorigin's accelerator, through TecoInference."""

from __future__ import annotations

from collections.abc import Iterable

from zoo import hookimpl
from zoo.types import Device
from zoo_sdaa.device import SdaaDevice


@hookimpl
def zoo_devices() -> Iterable[Device]:
    return [SdaaDevice()]
