"""The cards that the NVIDIA driver shows this process, without torch.

libcuda numbers the cards as torch does (it honours CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, which NVML and nvidia-smi do not), and is
asked first. NVML knows how much memory is free without opening a context on the card; where it is missing, that stays unknown.
Sources: CUDA Driver API reference, NVML API reference.
"""

from __future__ import annotations

import ctypes
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.api import ZooError

CUDA, NVML = ("nvcuda.dll", "nvml.dll") if sys.platform == "win32" else ("libcuda.so.1", "libnvidia-ml.so.1")
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the enumeration CUdevice_attribute."""
NO_CARD = 100
"""CUDA_ERROR_NO_DEVICE."""

Load = Callable[[str], Any]
"""Opens a shared library by its name; raises OSError where there is none."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card; ``number`` is what follows ``cuda:``. ``memory`` is in bytes."""

    number: int
    name: str
    memory: int
    capability: tuple[int, int]
    uuid: str

    @property
    def label(self) -> str:
        return f"cuda:{self.number} ({self.name})"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The cards, and the newest CUDA version that the driver can run: (13, 0)."""

    cards: Sequence[Card]
    cuda: tuple[int, int]


class _NvmlMemory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def list_cards(load: Load = ctypes.CDLL) -> Listing:
    """Ask the driver. Raises ZooError when there is no driver, when it fails, or when it shows no card."""
    try:
        cuda = load(CUDA)
    except OSError as error:
        raise ZooError(f"there is no NVIDIA driver: {CUDA} cannot be loaded") from error
    code = cuda.cuInit(0)
    if code == NO_CARD:
        raise ZooError(f"the NVIDIA driver shows no card{_hidden()}")
    if code:
        raise ZooError(f"the NVIDIA driver cannot be used: {_error(cuda, code)}")
    version, count = ctypes.c_int(), ctypes.c_int()
    _check(cuda, cuda.cuDriverGetVersion(ctypes.byref(version)))
    _check(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)))
    if not count.value:
        raise ZooError(f"the NVIDIA driver shows no card{_hidden()}")
    cards = [_card(cuda, number) for number in range(count.value)]
    return Listing(cards=cards, cuda=(version.value // 1000, version.value % 1000 // 10))


def free_memory(card: Card, load: Load = ctypes.CDLL) -> int | None:
    """Bytes that nobody holds on the card, or None when NVML does not tell."""
    try:
        nvml = load(NVML)
    except OSError:
        return None
    if nvml.nvmlInit_v2():
        return None
    try:
        for prefix in ("GPU", "MIG"):  # a slice of a card has an identity of its own kind
            handle, memory = ctypes.c_void_p(), _NvmlMemory()
            name = f"{prefix}-{card.uuid}".encode()
            if nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)) == 0:
                failed = nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
                return None if failed else int(memory.free)
        return None
    finally:
        nvml.nvmlShutdown()


def _card(cuda: Any, number: int) -> Card:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name, identity = ctypes.create_string_buffer(256), ctypes.create_string_buffer(16)
    _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), number))
    _check(cuda, cuda.cuDeviceGetName(name, len(name), device))
    _check(cuda, cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    # The second version knows the slices of a divided card; old drivers have the first alone.
    _check(cuda, getattr(cuda, "cuDeviceGetUuid_v2", cuda.cuDeviceGetUuid)(identity, device))
    return Card(
        number=number,
        name=name.value.decode("utf-8", "replace"),
        memory=int(memory.value),
        capability=(_attribute(cuda, CAPABILITY_MAJOR, device), _attribute(cuda, CAPABILITY_MINOR, device)),
        uuid=str(uuid.UUID(bytes=identity.raw)),
    )


def _attribute(cuda: Any, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _check(cuda, cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device))
    return value.value


def _check(cuda: Any, code: int) -> None:
    if code:
        raise ZooError(f"the NVIDIA driver failed: {_error(cuda, code)}")


def _error(cuda: Any, code: int) -> str:
    text = ctypes.c_char_p()
    if cuda.cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value:
        return f"{text.value.decode('utf-8', 'replace')} (error {code})"
    return f"error {code}"


def _hidden() -> str:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if shown is None else f"; the environment variable CUDA_VISIBLE_DEVICES is '{shown}'"
