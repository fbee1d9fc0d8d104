"""The SDAA device as a user meets it, on the fake runtime."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import PANDA, Zoo
from sdaa_fixtures import Command, Run, scores
from zoo.testing.toy import WIDTH, toy_encodings, write_toy
from zoo.types import Artifact, SessionOptions
from zoo_sdaa.device import SdaaDevice
from zoo_sdaa.testing import Fake, Machine, fake_sdaa

pytest.importorskip("onnx")


def test_the_panda_demo_runs_in_half_precision_on_the_embedded_model(
    command: Command, exported: Path, fake: Fake
) -> None:
    ckpt = ("run", "zoo-reranker-tiny", "--ckpt", exported / "model.onnx", "--shape", 128)
    result = command(*ckpt, "--batch-size", 2, "--half", "--target", "sdaa")
    exact = command(*ckpt, "--target", "cpu")
    lines = result.stdout.splitlines()
    assert [line.split("-相似度:")[0] for line in lines] == [repr([list(pair)]) for pair in PANDA]
    for half, single in zip(scores(result), scores(exact), strict=True):
        assert half == float(np.float16(half)) == ast.literal_eval(repr(half))
        assert 0 < abs(half - single) < 0.01 * max(1.0, abs(single))
    assert fake.events("build")[0]["half"]
    assert fake.events("build")[0]["shapes"] == {"input_ids": [1, 128], "attention_mask": [1, 128]}


def test_no_half_is_float32_and_says_what_it_is_for(run: Run, fake: Fake) -> None:
    result, exact = run("--no-half"), run(target="cpu")
    np.testing.assert_allclose(scores(result), scores(exact), rtol=1e-5)
    assert not fake.events("build")[0]["half"]
    assert "fp32 on 'sdaa'" in result.stderr


def test_sdaa_is_the_default_device_where_there_is_a_card(zoo: Zoo, words: Path, toy: Path, fake: Fake) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--ckpt", toy, "--config-path", words, "--shape", 32)
    assert result.exit_code == 0
    assert "on sdaa in fp16" in result.stderr


def test_the_last_batch_is_filled_by_repeating_its_last_row_and_the_surplus_is_not_a_result(
    run: Run, fake: Fake
) -> None:
    pairs = "".join(f'["query {n}", "passage {n}"]\n' for n in range(11))
    result = run("--batch-size", 8, "--data-path", "-", input=pairs)
    assert len(scores(result)) == 11
    assert [(call["rows"], call["repeated"]) for call in fake.events("call")] == [(8, 0), (8, 5)]
    assert "11 pairs in" in result.stderr


def test_a_batch_size_that_is_not_a_multiple_of_the_spas_is_reported(run: Run, fake: Fake) -> None:
    assert "batches of 4 rows (4 SPAs x 1), where --batch-size is 6" in run("--batch-size", 6).stderr


def test_the_scores_are_the_same_whatever_the_batch_and_the_number_of_spas(run: Run, tmp_path: Path) -> None:
    found = []
    for spas, batch_size in ((4, 4), (3, 9), (4, 64)):
        with fake_sdaa(tmp_path / f"fake-{spas}-{batch_size}", Machine(spas=spas)):
            found.append(scores(run("--batch-size", batch_size)))
    assert found[0] == found[1] == found[2]


def test_the_device_time_of_the_runtimes_own_counter_is_reported(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.25)):
        assert "0.250 s of device time" in run("--batch-size", 4).stderr


COUNTERS = ("Context1.start_timing", "Context1.get_infer_time")


@pytest.mark.parametrize(
    "machine",
    [Machine(without=COUNTERS), Machine(without=COUNTERS[:1]), Machine(without=COUNTERS[1:]), Machine(generation=2)],
    ids=["none", "no start", "no reading", "generation 2"],
)
def test_a_runtime_without_a_counter_is_timed_from_outside_and_that_is_reported(
    run: Run, tmp_path: Path, machine: Machine
) -> None:
    with fake_sdaa(tmp_path / "fake", machine):
        result = run("--batch-size", 4)
    assert len(scores(result)) == 2
    assert "does not count device time" in result.stderr
    assert "times are taken from outside" in result.stderr
    assert "s of device time" not in result.stderr


def test_valid_mode_has_a_device_time_without_a_counter_too(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.02, without=COUNTERS)):
        result = run("--mode", "valid", "--limit", 1, "--batch-size", 16)
    assert result.exit_code == 0, result.stderr
    assert 0.02 <= float(re.findall(r"avg_inference_time: ([\d.]+)", result.stdout)[0]) < 2


def test_valid_mode_runs_on_the_card_and_tells_its_device_time(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.02)) as fake:
        result = run("--mode", "valid", "--limit", 2, "--batch-size", 16, "--half")
        calls = len(fake.events("call"))
    assert result.exit_code == 0, result.stderr
    summary, *_, metric = result.stdout.splitlines()
    assert metric.startswith("eval_metric: ")
    assert float(re.findall(r"avg_inference_time: ([\d.]+)", summary)[0]) == pytest.approx(0.02, rel=0.01)
    report = json.loads(next(Path("zoo-results").rglob("report.json")).read_text(encoding="utf-8"))
    timing = report["timing"]
    assert timing["vendor_samples_per_second"] * timing["e2e"] == pytest.approx(calls * 16)
    assert timing["pairs_per_second"] * timing["e2e"] == pytest.approx(timing["pairs"])
    assert timing["pairs"] < calls * 16


# What the runtime prints, and who runs it.


@pytest.mark.parametrize("generation", [1, 2])
def test_nothing_that_the_runtime_prints_reaches_the_results(
    toy: Path, words: Path, tmp_path: Path, generation: int
) -> None:
    """It prints a version table when it is imported, and chatters while it compiles, runs and releases."""
    arguments = ["run", "zoo-reranker-tiny", "--ckpt", str(toy), "--config-path", str(words), "--shape", "32"]
    for folder, options in (("compiled", []), ("loaded", ["--target", "sdaa"])):
        with fake_sdaa(tmp_path / folder, Machine(generation=generation)):  # type: ignore[arg-type]
            done = subprocess.run(
                [sys.executable, "-m", "zoo", *arguments, "--json", *options],
                capture_output=True,
                text=True,
                check=True,
            )
        assert [set(json.loads(line)) for line in done.stdout.splitlines()] == [
            {"query", "passage", "logit", "score"}
        ] * 2
        for said in (f"| {'tvm' if generation == 1 else 'tecoinference'} |", "a call begins", "engine released"):
            assert f"{said}" in done.stderr


def test_the_runtime_is_loaded_in_the_cards_own_process(run: Run, fake: Fake) -> None:
    assert len(scores(run())) == 2
    assert "tvm" not in sys.modules
    assert len({event["pid"] for event in fake.events()}) == 1


def test_a_card_can_be_run_in_this_process(run: Run, tmp_path: Path) -> None:
    import os

    with fake_sdaa(tmp_path / "fake", Machine(cards=2, spas=3, health={"0": "FAULT"})) as fake:
        apart = scores(run("--batch-size", 6))
        together = scores(run("--batch-size", 6, "--device-option", "process=no"))
        assert together == apart
        assert fake.events("call")[-1]["pid"] == os.getpid()
        assert [call["card"] for call in fake.events("call")] == [1, 1]
        assert [call["rows"] for call in fake.events("call")] == [6, 6]
        for name in ("SDAA_VISIBLE_DEVICES", "MAX_ENGINE_NUMS"):
            assert name not in os.environ


def test_several_cards_in_this_process_are_refused(run: Run, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2)):
        result = run("--device-option", "process=no", target="sdaa:all")
    assert result.exit_code == 1
    assert "process=no takes one card" in result.stderr


# The runtime's memory.


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("how", ["async", "sync"])
def test_outputs_share_memory_and_inputs_are_workspace_and_neither_is_seen(
    tmp_path: Path, generation: int, how: str
) -> None:
    """Two outputs are read through one buffer, calls write to one memory, and the inputs' memory is overwritten."""
    import onnx
    import onnxruntime
    from onnx import helper

    path = write_toy(tmp_path / "toy.onnx")
    model = onnx.load(str(path))
    model.graph.output.append(helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["batch_size", WIDTH]))
    onnx.save(model, str(path))
    exact = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    artifact = Artifact(model=path, precision="fp32", origin="test")
    extra = {"process": "no", "run": how, "generation": str(generation)}
    options = SessionOptions(precision="fp32", batch_size=8, max_length=16, extra=extra)
    machine = Machine(generation=generation)  # type: ignore[arg-type]
    with fake_sdaa(tmp_path / "fake", machine), SdaaDevice().open(artifact, options) as session:
        batches = [_batch(session.shape_rule.rows or 0, seed) for seed in range(3)]
        kept = [{name: array.copy() for name, array in batch.items()} for batch in batches]
        futures = [session.submit(batch) for batch in batches]
        only_mean = session.submit(batches[0], ["mean"]).result(30)
        results = [future.result(30) for future in futures]
        with pytest.raises(Exception, match="has no output 'nothing'; it has logits, mean"):
            session.submit(batches[0], ["nothing"])
    assert list(only_mean) == ["mean"]
    for batch, before, result in zip(batches, kept, results, strict=True):
        logits, mean = exact.run(["logits", "mean"], before)
        np.testing.assert_allclose(result["logits"], logits, rtol=1e-5)
        np.testing.assert_allclose(result["mean"], mean, rtol=1e-5)
        for name, array in batch.items():
            np.testing.assert_array_equal(array, before[name])


def _batch(rows: int, seed: int) -> dict[str, np.ndarray]:
    ids = np.array([row.features["input_ids"] for row in toy_encodings([16] * rows, seed).rows], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
