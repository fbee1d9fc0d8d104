"""The devices ``cuda`` and ``torch``: what they say of this machine, without importing torch; what they refuse."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Zoo
from zoo.errors import NotInstalledError, ZooError
from zoo.options import read_options
from zoo.types import Artifact, SessionOptions
from zoo_torch import device as devices
from zoo_torch.cards import CUDA, Listing, free_memory, list_cards
from zoo_torch.device import CudaDevice, TorchDevice
from zoo_torch.options import card_numbers

GIB = 2**30
IDENTITY = bytes(range(16))
UUID = b"GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"


class PretendedDriver:
    """libcuda and libnvidia-ml of a machine with ``cards`` cards, as ctypes would load them."""

    def __init__(
        self,
        cards: int = 1,
        *,
        version: int = 13000,
        capability: tuple[int, int] = (9, 0),
        init: int = 0,
        free: int | None = 70 * GIB,
        missing: tuple[str, ...] = (),
    ) -> None:
        self.cards, self.version, self.capability, self.init, self.free = cards, version, capability, init, free
        self.missing = missing

    def __call__(self, name: str) -> Any:
        if name in self.missing:
            raise OSError(f"{name}: cannot open shared object file")
        return self

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"system has unsupported display driver / cuda driver combination"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.cards
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"NVIDIA H100 80GB HBM3"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        memory._obj.value = 80 * GIB
        return 0

    def cuDeviceGetUuid(self, identity: Any, device: Any) -> int:
        ctypes.memmove(identity, IDENTITY, 16)
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: Any) -> int:
        value._obj.value = {75: self.capability[0], 76: self.capability[1]}[which]
        return 0

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        return 0 if name == UUID else 6  # NVML_ERROR_NOT_FOUND

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        if self.free is None:
            return 3  # NVML_ERROR_NOT_SUPPORTED
        memory._obj.free = self.free
        return 0

    def nvmlShutdown(self) -> int:
        return 0


@pytest.fixture
def torch_built_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """``torch_built_for("13.0")``: torch, safetensors and transformers look installed, torch as that build; None for the CPU's."""

    def pretend(cuda: str | None) -> None:
        folder = tmp_path / "torch"
        folder.mkdir(exist_ok=True)
        (folder / "version.py").write_text(
            f"__version__ = '2.13.0'\ndebug = False\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
        )
        real = importlib.util.find_spec

        def find_spec(name: str) -> Any:
            if name not in devices.PACKAGES:
                return real(name)
            return importlib.util.spec_from_file_location(
                name, folder / "__init__.py", submodule_search_locations=[str(folder)]
            )

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        monkeypatch.setattr(devices, "installed", lambda package: "2.13.0")

    return pretend


def test_a_machine_with_a_card_is_described(torch_built_for: Any) -> None:
    torch_built_for("13.0")
    available = CudaDevice(PretendedDriver()).probe()
    assert available.ok
    assert available.details == {
        "cards": "cuda:0 (NVIDIA H100 80GB HBM3)",
        "memory": "70.0 of 80.0 GiB free",
        "capability": "9.0",
        "driver": "CUDA 13.0",
        "torch": "2.13.0 (CUDA 13.0)",
    }


@pytest.mark.parametrize(
    ("driver", "built", "reason", "remedy"),
    [
        (PretendedDriver(), None, "torch 2.13.0 is a build without CUDA", "CUDA build of torch"),
        (PretendedDriver(missing=(CUDA,)), "13.0", "no NVIDIA driver: .* cannot be loaded", "driver"),
        (PretendedDriver(init=100), "13.0", "shows no card", "--gpus all"),
        (PretendedDriver(cards=0), "13.0", "shows no card", "--gpus all"),
        (PretendedDriver(init=803), "13.0", r"unsupported display driver.*\(error 803\)", "driver"),
        (
            PretendedDriver(version=12080),
            "13.0",
            "runs CUDA 12.8 at most, and torch 2.13.0 is built for CUDA 13.0",
            "Update",
        ),
        (PretendedDriver(free=100 * 2**20), "13.0", "no card has 512 MiB of memory free", "nvidia-smi"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(
    driver: PretendedDriver, built: str | None, reason: str, remedy: str, torch_built_for: Any
) -> None:
    torch_built_for(built)
    available = CudaDevice(driver).probe()
    assert not available.ok
    assert re.search(reason, available.reason)
    assert remedy in available.remedy


def test_a_driver_newer_than_torch_or_of_its_major_version_will_do(torch_built_for: Any) -> None:
    for version, built in ((13010, "12.8"), (12040, "12.8"), (13000, "13.0")):
        torch_built_for(built)
        assert CudaDevice(PretendedDriver(version=version)).probe().ok


def test_memory_that_is_not_told_is_no_reason_against_a_card(torch_built_for: Any) -> None:
    torch_built_for("13.0")
    for driver in (PretendedDriver(free=None), PretendedDriver(missing=("libnvidia-ml.so.1", "nvml.dll"))):
        available = CudaDevice(driver).probe()
        assert available.ok
        assert available.details["memory"] == "80.0 GiB"


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("torch", "transformers") else real(name)
    )
    for device in (CudaDevice(PretendedDriver()), TorchDevice()):
        available = device.probe()
        assert not available.ok
        assert available.reason.startswith("not installed: torch, ")
        assert "transformers" in available.reason
        assert "zoo-runner[torch]" in available.remedy
        with pytest.raises(NotInstalledError, match="torch"):
            device.open(
                Artifact(model=Path(), precision="fp32", origin="test"),
                SessionOptions(precision="fp32", batch_size=1, max_length=8),
            )


def test_cards_hidden_by_the_environment_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ZooError, match="CUDA_VISIBLE_DEVICES is ''"):
        list_cards(PretendedDriver(init=100))


def test_free_memory_is_asked_of_the_card_itself() -> None:
    card = list_cards(PretendedDriver(cards=2)).cards[1]
    assert card.number == 1
    assert free_memory(card, PretendedDriver(free=5 * GIB)) == 5 * GIB


def test_bfloat16_is_offered_from_ampere_on() -> None:
    assert "bf16" in CudaDevice(PretendedDriver(capability=(8, 0))).precisions
    assert list(CudaDevice(PretendedDriver(capability=(7, 5))).precisions) == ["fp16", "fp32"]


@pytest.mark.parametrize(("selector", "numbers"), [("", [0]), ("1", [1]), ("all", [0, 1, 2]), ("2,0", [2, 0])])
def test_cards_are_chosen_by_number(selector: str, numbers: list[int]) -> None:
    assert card_numbers(selector, [0, 1, 2]) == numbers


@pytest.mark.parametrize(
    ("selector", "fault"), [("3", "no card cuda:3; the driver shows 0, 1, 2"), ("x", "'cuda:x' names no cards"),
                            ("0,0", "names a card twice"), ("0,", "names no cards"), ("-1", "names no cards")]
)  # fmt: skip
def test_a_choice_of_cards_that_makes_no_sense_is_refused(selector: str, fault: str) -> None:
    with pytest.raises(ZooError, match=fault):
        card_numbers(selector, [0, 1, 2])


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ({"atention": "nested"}, "option of the device 'cuda' called 'atention'. Did you mean 'attention'"),
        ({"attention": "flash"}, "attention=flash of the device 'cuda': it takes auto, varlen, nested, padded"),
        ({"batch_tokens": "many"}, "batch_tokens=many of the device 'cuda': it takes a whole number, 1 or more"),
        ({"batch_tokens": "0"}, "batch_tokens=0 of the device 'cuda': it takes a whole number, 1 or more"),
    ],
)
def test_options_are_checked(extra: dict[str, str], fault: str) -> None:
    with pytest.raises(ZooError, match=fault):
        read_options("the device 'cuda'", CudaDevice.options, extra)


def test_listing_devices_does_not_import_torch(python: str) -> None:
    code = (
        "import sys; from zoo.registry.catalogue import Catalogue\n"
        "for device in Catalogue.installed().devices: device.probe(), device.precisions\n"
        "print([name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_benchmark_says_why_it_measures_nothing_here(python: str) -> None:
    available = CudaDevice().probe()
    if available.ok:
        pytest.skip("a card is here, and the benchmark takes minutes on it")
    command = [python, str(ROOT / "benchmarks" / "gpu.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, last = done.stdout.splitlines()
    assert available.reason in said
    assert json.loads(last) == {"skipped": available.reason}


def test_the_listing_shows_both_devices(zoo: Zoo) -> None:
    listed = zoo("devices").stdout
    assert any(line.startswith("cuda ") for line in listed.splitlines())
    assert any(line.startswith("torch ") for line in listed.splitlines())


def test_the_listing_of_a_driver_has_what_torch_calls_the_cards() -> None:
    listing = list_cards(PretendedDriver(cards=2, version=12080))
    assert isinstance(listing, Listing)
    assert listing.cuda == (12, 8)
    assert [card.label for card in listing.cards] == [
        "cuda:0 (NVIDIA H100 80GB HBM3)",
        "cuda:1 (NVIDIA H100 80GB HBM3)",
    ]
