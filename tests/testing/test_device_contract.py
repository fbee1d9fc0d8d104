"""The bundled devices keep the contract that plugin authors are given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo.testing.device import DeviceContract
from zoo.testing.toy import write_toy
from zoo.types import Device
from zoo_cpu.device import CpuDevice
from zoo_openvino.device import OpenVinoDevice
from zoo_sdaa.device import SdaaDevice
from zoo_sdaa.testing import Machine, fake_sdaa

pytestmark = [pytest.mark.openvino]

pytest.importorskip("onnx")


class TestCpu(DeviceContract):
    @pytest.fixture
    def device(self) -> Device:
        return CpuDevice()


class TestSdaaGeneration1(DeviceContract):
    @pytest.fixture
    def device(self, tmp_path: Path) -> Iterator[Device]:
        with fake_sdaa(tmp_path / "fake"):
            yield SdaaDevice()


class TestSdaaGeneration2(DeviceContract):
    @pytest.fixture
    def device(self, tmp_path: Path) -> Iterator[Device]:
        with fake_sdaa(tmp_path / "fake", Machine(generation=2)):
            yield SdaaDevice()


class TestSdaaOneSpa(TestSdaaGeneration1):
    options = {"spa": "1"}


class TestSdaaGeneration2Synchronous(TestSdaaGeneration2):
    options = {"run": "sync"}


class TestSdaaSeveralCards(DeviceContract):
    options = {"card_id": "0,1"}

    @pytest.fixture
    def device(self, tmp_path: Path) -> Iterator[Device]:
        with fake_sdaa(tmp_path / "fake", Machine(cards=2)):
            yield SdaaDevice()

    def test_an_unknown_part_of_the_device_is_an_error_for_the_user(self, device: Device, model: Path) -> None:
        self.options = {}
        super().test_an_unknown_part_of_the_device_is_an_error_for_the_user(device, model)


class TestOpenVino(DeviceContract):
    @pytest.fixture
    def device(self) -> Device:
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
        return OpenVinoDevice()


class TestOpenVinoWithInt8Weights(TestOpenVino):
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        from zoo.api import Job
        from zoo_onnx.weight_only_int8 import compress

        job = Job(
            name="compress", model=write_toy(tmp_path / "toy.onnx"), target=tmp_path / "int8", reference=tmp_path / "none"
        )  # fmt: skip
        job.target.mkdir()
        assert compress(job)["note"].startswith("1 matri")
        return job.output
