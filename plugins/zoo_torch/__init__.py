"""Checkpoints run in torch: on NVIDIA cards, packed, and on the CPU by the same code."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.api import Device, hookimpl
from zoo_torch.device import CudaDevice, TorchDevice


@hookimpl
def zoo_devices() -> Iterable[Device]:
    return [CudaDevice(), TorchDevice()]
