"""The device ``cuda`` on a card: scores against transformers in float32 on the CPU, memory that runs out, time, several precisions.

Skips without a card. Nothing here has a substitute on the CPU; the same code is tested there by the files beside this one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import Zoo
from random_checkpoints import make_checkpoint
from torch_checkpoints import OTHERS, PACKED, make, make_batch, open_session, padding_of, row_by_row, score
from zoo.errors import ZooError
from zoo.options import read_options
from zoo.types import Artifact, Session, SessionOptions, Tensors
from zoo_torch.device import CudaDevice, _open_cards, open_on_device

torch = pytest.importorskip("torch", reason="the device 'cuda' needs torch")
pytest.importorskip("safetensors", reason="the device 'cuda' needs safetensors")

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no NVIDIA card is here, or torch is a build without CUDA"
    ),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

LENGTHS = (100, 57, 31, 31, 8, 3, 1)
TOLERANCE = {"fp32": 1e-4, "fp16": 0.05, "bf16": 0.4}


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", [*PACKED, *OTHERS])
def test_scores_on_a_card_are_those_of_transformers_in_float32(name: str, precision: str, tmp_path: Path) -> None:
    if precision not in CudaDevice().precisions:
        pytest.skip(f"this card does not compute in {precision}")
    model = make(name, tmp_path)
    inputs = make_batch(LENGTHS, padding=padding_of(model))
    with open_session(CudaDevice(), tmp_path, precision) as session:  # type: ignore[arg-type]
        scores = score(session, inputs)
        expected = row_by_row(model, inputs, session.input_names)
    assert np.abs(scores - expected).max() <= TOLERANCE[precision]


@pytest.mark.parametrize(
    "options",
    [{"attention": "nested"}, {"attention": "padded"}, {"compile": "off"}, {"packed": "off"}, {"process": "no"}],
    ids=str,
)
def test_every_form_gives_the_same_scores(options: dict[str, str], tmp_path: Path) -> None:
    model = make("xlm-roberta", tmp_path)
    inputs = make_batch(LENGTHS, padding=1)
    with open_session(CudaDevice(), tmp_path, "fp16", **options) as session:
        expected = row_by_row(model, inputs, session.input_names)
        assert np.abs(score(session, inputs) - expected).max() <= TOLERANCE["fp16"]


def test_a_card_from_ampere_on_packs_by_varlen_in_half_precision(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("torch.nn.attention.varlen", reason="torch 2.10 has it")
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("FlashAttention needs an Ampere card")
    caplog.set_level(logging.INFO)
    make("xlm-roberta", tmp_path)
    with open_session(CudaDevice(), tmp_path, "fp16", process="no"):
        assert "attention varlen" in caplog.text
        assert "additions and normalisations fused" in caplog.text
        assert "GELU inside the product" in caplog.text


def test_a_score_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    make("xlm-roberta", tmp_path)
    inputs = make_batch(LENGTHS, padding=1)
    with open_session(CudaDevice(), tmp_path, "fp32") as session:
        together = score(session, inputs)
        alone = [score(session, {key: array[row : row + 1] for key, array in inputs.items()})[0] for row in range(7)]
    np.testing.assert_allclose(alone, together, atol=1e-4, rtol=0)


def test_memory_that_runs_out_makes_batches_smaller_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make("xlm-roberta", tmp_path, hidden_size=256, intermediate_size=2048)
    inputs = make_batch([100] * 2000, padding=1)
    with open_session(CudaDevice(), tmp_path, "fp16", batch_tokens="300000", process="no") as session:
        right = score(session, inputs)
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved() + 200 * 2**20  # less than the batch's widest activation
        torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
        try:
            scores = score(session, inputs)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert "does not hold a batch" in caplog.text
    np.testing.assert_allclose(scores, right, atol=TOLERANCE["fp16"], rtol=0)


def test_device_time_is_read_from_events_and_within_the_time_that_passed(tmp_path: Path) -> None:
    make("xlm-roberta", tmp_path, hidden_size=256, intermediate_size=1024)
    inputs = make_batch([100] * 64, padding=1)
    with open_session(CudaDevice(), tmp_path, "fp16") as session:
        started = time.perf_counter()
        futures = [session.submit({name: inputs[name] for name in session.input_names}) for _ in range(20)]
        for future in futures:
            future.result(60)
        passed = time.perf_counter() - started
        assert 0 < session.device_seconds <= passed * 1.02  # type: ignore[attr-defined]


def test_a_card_that_there_is_not_is_an_error(tmp_path: Path) -> None:
    make("xlm-roberta", tmp_path)
    options = SessionOptions(precision="fp16", batch_size=None, max_length=100, selector="99")
    with pytest.raises(ZooError, match="no card cuda:99"):
        CudaDevice().open(Artifact(model=tmp_path, is_checkpoint=True, precision="fp16", origin="test"), options)


def test_the_probe_agrees_with_torch() -> None:
    available = CudaDevice().probe()
    assert available.ok, available.reason
    assert torch.cuda.get_device_name(0) in available.details["cards"]
    major, minor = torch.cuda.get_device_capability(0)
    assert available.details["capability"].startswith(f"{major}.{minor}")


def test_two_processes_on_one_card_score_as_one_does_and_one_that_dies_is_named(tmp_path: Path) -> None:
    """What several cards are, but for the second card."""
    model = make("xlm-roberta", tmp_path)
    inputs = make_batch(LENGTHS, padding=padding_of(model))
    wanted = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    device = CudaDevice()
    options = SessionOptions(
        precision="fp16", batch_size=None, max_length=100, extra=read_options("the device 'cuda'", device.options, {})
    )
    artifact = Artifact(model=tmp_path, is_checkpoint=True, precision="fp16", origin="test")
    with open_session(device, tmp_path, "fp16") as alone:
        expected = score(alone, inputs)
    with _open_cards(["cuda:0", "cuda:0"], open_on_device, artifact, options) as session:
        for future in [session.submit(wanted) for _ in range(6)]:
            np.testing.assert_allclose(future.result(60)["logits"][:, 0], expected, atol=1e-3, rtol=0)
        assert session.device_seconds > 0  # type: ignore[attr-defined]
        os.kill(session._children[1].process_id, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(ZooError, match=r"cuda:0 \(process \d+\) has died: it was ended by SIGKILL"):
            all_of(session, wanted)


def all_of(session: Session, inputs: Tensors) -> None:
    """Six batches at once, so that each process gets some."""
    for future in [session.submit(inputs) for _ in range(6)]:
        future.result(60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its tokenizer, as users have one."""
    folder = tmp_path_factory.mktemp("card") / "checkpoint"
    make_checkpoint(folder)
    return folder


PAIRS = [("what is panda?", "hi"), ("what is panda?", "the giant panda is a bear"), ("a bear?", "is it a panda?")]


def write_pairs(file: Path) -> Path:
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    return file


@pytest.mark.parametrize("arguments", [[], ["--precision", "bf16"], ["--no-half"], ["--batch-size", "1"]], ids=str)
def test_a_command_gives_the_scores_of_the_cpu(arguments: list[str], whole: Path, zoo: Zoo, tmp_path: Path) -> None:
    command = [
        "run",
        "bge-reranker-v2-m3",
        "--config-path",
        whole,
        "--data-path",
        write_pairs(tmp_path / "pairs.jsonl"),
    ]
    scores = {}
    for target in ("torch", "cuda"):
        done = zoo(*command, "--json", "--target", target, *(arguments if target == "cuda" else []))
        assert done.exit_code == 0, done.stderr
        scores[target] = [json.loads(line)["logit"] for line in done.stdout.splitlines()]
    tolerance = 1e-4 if "--no-half" in arguments else 0.4 if "bf16" in arguments else 0.05
    np.testing.assert_allclose(scores["cuda"], scores["torch"], atol=tolerance, rtol=0)


def test_numbers_that_overflow_in_half_precision_name_the_pair_and_what_to_try(
    whole: Path, zoo: Zoo, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    large = tmp_path / "large"
    shutil.copytree(whole, large)
    tensors = load_file(large / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layer.0.intermediate.dense.weight"))
    tensors[name] *= 1e6  # what the next product gives is beyond float16 and well within float32
    save_file(tensors, large / "model.safetensors")
    command = [
        "run",
        "bge-reranker-v2-m3",
        "--config-path",
        large,
        "--data-path",
        write_pairs(tmp_path / "pairs.jsonl"),
    ]
    done = zoo(*command, "--target", "cuda")
    assert done.exit_code == 1
    assert "the score of a pair is nan" in done.stderr
    assert "try bf16 or fp32" in done.stderr
    done = zoo(*command, "--target", "cuda", "--precision", "bf16")
    assert done.exit_code == 0, done.stderr


def test_verify_holds_a_card_against_the_cpu(whole: Path, zoo: Zoo, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    done = zoo("verify", whole, "--data-path", pairs, "--target", "cuda", "--no-half", "--output", report)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert json.loads(report.read_text(encoding="utf-8"))["passed"]
