"""The device ``torch`` from the command line, and several cards as one session: all of it on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_torch_device import PretendedDriver

from conftest import Zoo
from random_checkpoints import make_checkpoint
from torch_checkpoints import make, make_batch, open_on_the_cpu, open_session, padding_of, row_by_row
from zoo import Reranker
from zoo.errors import ZooError
from zoo.options import read_options
from zoo.types import Artifact, Availability, SessionOptions
from zoo_torch import device as devices
from zoo_torch.device import CudaDevice, TorchDevice

torch = pytest.importorskip("torch", reason="the device 'torch' needs torch")
pytest.importorskip("safetensors", reason="the device 'torch' needs safetensors")

pytestmark = [pytest.mark.torch]

MODEL = "bge-reranker-v2-m3"
PAIRS = [
    ("what is panda?", "hi"),
    ("what is panda?", "the giant panda is a bear"),
    ("what is the bear?", "a giant bear, is it a panda?"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("torch") / "checkpoint"
    return folder, make_checkpoint(folder)


def expected_scores(folder: Path, model: Any) -> list[float]:
    """transformers in float32, each pair alone, from the checkpoint's own tokenizer file."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with torch.no_grad():
        return [float(model(torch.tensor([tokenizer.encode(*pair).ids])).logits[0, 0]) for pair in PAIRS]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_checkpoint_is_run_as_it_is_with_the_scores_of_transformers(
    workers: int, checkpoint: tuple[Path, Any], zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if workers > len(os.sched_getaffinity(0)):
        pytest.skip("each worker needs a CPU")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    arguments = ["--config-path", checkpoint[0], "--data-path", pairs, "--target", "torch", "--workers", workers]
    done = zoo("run", MODEL, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    scores = [json.loads(line)["logit"] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(scores, expected_scores(*checkpoint), atol=2e-5, rtol=0)
    assert not list((tmp_path / "home").glob("artifacts/*"))  # nothing was exported


def test_a_pair_whose_score_is_not_a_number_is_named_with_what_to_try(
    checkpoint: tuple[Path, Any], zoo: Zoo, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(checkpoint[0], broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["classifier.out_proj.bias"][:] = float("nan")
    save_file(tensors, broken / "model.safetensors")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    done = zoo("run", MODEL, "--config-path", broken, "--data-path", pairs, "--target", "torch", "--json")
    assert done.exit_code == 1
    # the longest pair is computed first
    assert "the score of a pair is nan. The pair: 'what is the bear?' / 'a giant bear, is it a panda?'" in done.stderr
    assert "try bf16 or fp32" in done.stderr


def open_cards(count: int, selector: str, folder: Path) -> Any:
    device = CudaDevice(PretendedDriver(cards=count), open_on_the_cpu)
    options = SessionOptions(
        precision="fp32",
        batch_size=None,
        max_length=100,
        threads=2,
        selector=selector,
        extra=read_options("the device 'cuda'", device.options, {}),
    )
    return device.open(Artifact(model=folder, is_checkpoint=True, precision="fp32", origin="test"), options)


@pytest.fixture
def _built_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "built_for", lambda: "13.0")


@pytest.mark.usefixtures("_built_for_cuda")
def test_several_cards_score_as_one_does_and_one_that_dies_is_named(tmp_path: Path) -> None:
    model = make("xlm-roberta", tmp_path)
    inputs = make_batch((50, 31, 8, 3), padding=padding_of(model))
    wanted = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with open_session(TorchDevice(), tmp_path) as alone:
        one_batch = alone.shape_rule.parallel_batches
    with open_cards(3, "0,2", tmp_path) as session:
        assert session.shape_rule.parallel_batches == 2 * one_batch
        results = [future.result(60) for future in [session.submit(wanted) for _ in range(4)]]
        for result in results:
            np.testing.assert_allclose(
                result["logits"][:, 0], row_by_row(model, inputs, list(wanted)), atol=2e-5, rtol=0
            )
        assert session.device_seconds > 0
        os.kill(session._children[1].process_id, signal.SIGKILL)
        with pytest.raises(ZooError, match=r"cuda:2 \(process \d+\) has died: it was ended by SIGKILL.*Xid"):
            all_of(session, wanted)


def all_of(session: Any, inputs: Any) -> None:
    """Four batches at once, so that each card gets some."""
    for future in [session.submit(inputs) for _ in range(4)]:
        future.result(60)


@pytest.mark.usefixtures("_built_for_cuda")
def test_workers_are_refused_beside_several_cards(
    checkpoint: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaDevice, "probe", lambda device: Availability(ok=True))
    with pytest.raises(ZooError, match=r"2 workers would each open 'cuda:all'"):
        Reranker.open(MODEL, device="cuda:all", workers=2, checkpoint=checkpoint[0], offline=True)


def test_what_hinders_one_of_several_cards_is_the_error(tmp_path: Path) -> None:
    make("xlm-roberta", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ZooError, match="is not a whole safetensors file"):
        open_cards(2, "all", tmp_path)


@pytest.mark.export
def test_verify_holds_it_against_the_exported_model(
    checkpoint: tuple[Path, Any], zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("optimum", "onnx"):
        pytest.importorskip(module, reason="the reference on the CPU is exported")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    report = tmp_path / "report.json"
    arguments = [MODEL, "--config-path", checkpoint[0], "--target", "torch", "--data-path", pairs, "--output", report]
    done = zoo("verify", *arguments)
    assert done.exit_code == 0, done.stdout + done.stderr
    content = json.loads(report.read_text())
    assert content["passed"]
    assert content["device"]["name"] == "torch"
    assert content["reference"]["name"] == "cpu"
