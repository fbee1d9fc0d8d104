"""SDAA, Tecorigin's accelerator, through TecoInference."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.api import CacheFolder, Device, hookimpl
from zoo_sdaa.device import SdaaDevice


@hookimpl
def zoo_devices() -> Iterable[Device]:
    return [SdaaDevice()]


@hookimpl
def zoo_caches() -> Iterable[CacheFolder]:
    return [CacheFolder(name="engines", holds="engines compiled for SDAA")]
