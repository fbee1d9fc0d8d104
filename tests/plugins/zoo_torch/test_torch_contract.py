"""The devices ``torch`` and ``cuda`` keep the contract of devices, on a checkpoint in place of a model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_torch_device import PretendedDriver

from torch_checkpoints import make, open_on_the_cpu
from zoo.testing.device import MAX_LENGTH, DeviceContract
from zoo.testing.device_runs import LENGTHS
from zoo.testing.toy import toy_encodings
from zoo.types import Device, Scores
from zoo_torch.device import CudaDevice, TorchDevice

torch = pytest.importorskip("torch", reason="the device 'torch' needs torch")
pytest.importorskip("safetensors", reason="the device 'torch' needs safetensors")

pytestmark = [pytest.mark.torch]


class TestTorch(DeviceContract):
    tolerance = {
        "fp32": 1e-4,
        "fp16": 0.02,
        "bf16": 0.2,
    }  # bfloat16 in four layers of a random model moves scores by 0.1

    @pytest.fixture
    def device(self) -> Device:
        return TorchDevice()

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        make("xlm-roberta", tmp_path / "checkpoint", vocab_size=5000, max_position_embeddings=MAX_LENGTH + 2)
        return tmp_path / "checkpoint"

    @pytest.fixture
    def expected(self, model: Path) -> Scores:
        """transformers in float32, one unpadded row at a time."""
        from transformers import AutoModelForSequenceClassification

        reference = AutoModelForSequenceClassification.from_pretrained(model).eval()
        with torch.no_grad():
            logits = [
                float(reference(torch.tensor([list(row.features["input_ids"])])).logits[0, 0])
                for row in toy_encodings(LENGTHS).rows
            ]
        return np.array(logits, dtype=np.float32)

    def test_its_recipes_are_empty_for_it_opens_the_checkpoint_itself(self, device: Device) -> None:
        assert all(device.recipe(precision) == () for precision in device.precisions)


class TestTorchThroughTransformers(TestTorch):
    options = {"packed": "off"}


class TestCudaInItsProcess(TestTorch):
    """The device of a card, with a session on the CPU in the card's process."""

    @pytest.fixture
    def device(self, monkeypatch: pytest.MonkeyPatch) -> Device:
        monkeypatch.setattr("zoo_torch.device.built_for", lambda: "13.0")
        return CudaDevice(PretendedDriver(cards=1), open_on_the_cpu)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA card is here, or torch is a build without CUDA")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
class TestCuda(TestTorch):
    tolerance = {"fp32": 1e-4, "fp16": 0.05, "bf16": 0.4}

    @pytest.fixture
    def device(self) -> Device:
        return CudaDevice()
