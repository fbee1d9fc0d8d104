"""``--precision auto``: a precision is taken on measured evidence that is inside the bound, and on nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_collection
from conftest import Zoo
from random_checkpoints import exported_only
from zoo import precision
from zoo.checks.precision import measure
from zoo.errors import ZooError
from zoo.evaluation.datasets import DataRequest
from zoo.precision import Quality, Report, choose, identity, keep
from zoo.registry.catalogue import Catalogue
from zoo.settings import RunSettings
from zoo.types import Checkpoint, Precision, PrecisionInfo
from zoo_cpu.device import CpuDevice

pytestmark = [pytest.mark.export, pytest.mark.openvino]

GOOD = Quality(
    precision="int8", collection="d/en-test", queries=60, pairs=600, max_deviation=0.2, rms_deviation=0.1, spread=2.0,
    spearman=0.995, ndcg_at_10_fp32=0.7, ndcg_at_10=0.695, seconds_fp32=20.0, seconds=8.0,
)  # fmt: skip
PANDA = "zoo-reranker-tiny"


class Gradual(CpuDevice):
    """A CPU that computes in two precisions beside float32, and in a third on request."""

    precisions: Mapping[Precision, PrecisionInfo] = {
        "fp32": PrecisionInfo(offered=True),
        "bf16": PrecisionInfo(offered=True, cost="some"),
        "int8": PrecisionInfo(offered=True, cost="some"),
        "fp16": PrecisionInfo(offered=False, cost="slow"),
    }


class Halves(CpuDevice):
    """A card without float32."""

    precisions: Mapping[Precision, PrecisionInfo] = {"fp16": PrecisionInfo(offered=True)}


@pytest.fixture
def checkpoint(tmp_path: Path, exported: Path) -> Checkpoint:
    shutil.copytree(exported, tmp_path / "checkpoint")
    return Checkpoint(folder=tmp_path / "checkpoint", served_by="a test")


def report(checkpoint: Checkpoint, precision: Precision = "int8", *more: Quality, **changed: Any) -> Report:
    return Report(
        model=PANDA, device="cpu", precision=precision, files=identity(checkpoint), max_length=512,
        collections=[replace(GOOD, precision=precision, **changed), *more], details={}, versions={}, made_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_without_a_report_it_is_float32_and_says_how_to_make_one(checkpoint: Checkpoint) -> None:
    precision, reason = choose(PANDA, checkpoint, Gradual())
    assert precision == "fp32"
    for missing in ("bf16", "int8"):
        assert f"{missing} has no quality report for this checkpoint on 'cpu'" in reason
    assert "fp16" not in reason, "what the device does not compute natively is not asked for"


def test_a_report_inside_the_bound_is_followed_and_quoted(checkpoint: Checkpoint) -> None:
    keep(report(checkpoint))
    precision, reason = choose(PANDA, checkpoint, Gradual())
    assert precision == "int8"
    for figure in ("2.50 times as fast", "0.9950", "0.6950 (fp32 0.7000)", "60 queries of d/en-test", "2026-01-01"):
        assert figure in reason


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"spearman": 0.9899}, "rank correlation 0.9899 on d/en-test, 0.99 is needed"),
        ({"ndcg_at_10": 0.689}, "nDCG@10 0.0110 below fp32's on d/en-test, 0.01 is allowed"),
        ({"queries": 49}, "measured on 49 queries, 50 are needed"),
        ({"seconds": 20.0}, "no faster: 1.00 times"),
    ],
)
def test_a_report_outside_the_bound_is_not_followed(checkpoint: Checkpoint, changed: dict[str, Any], said: str) -> None:
    keep(report(checkpoint, **changed))
    precision, reason = choose(PANDA, checkpoint, Gradual())
    assert precision == "fp32"
    assert said in reason


@pytest.mark.parametrize("name", ["spearman", "ndcg_at_10"])
def test_what_is_not_a_number_is_outside_the_bound(checkpoint: Checkpoint, name: str) -> None:
    assert not report(checkpoint).faults
    assert report(checkpoint, **{name: float("nan")}).faults  # type: ignore[arg-type]


def test_each_collection_must_be_inside_the_bound(checkpoint: Checkpoint) -> None:
    keep(report(checkpoint, "int8", replace(GOOD, collection="d/zh-test", spearman=0.9)))
    precision, reason = choose(PANDA, checkpoint, Gradual())
    assert precision == "fp32"
    assert "d/zh-test" in reason
    assert "d/en-test" not in reason


def test_queries_of_all_collections_count_and_a_better_ndcg_is_no_loss(checkpoint: Checkpoint) -> None:
    other = replace(GOOD, collection="d/zh-test", queries=25, ndcg_at_10=0.75)
    keep(report(checkpoint, "int8", other, queries=25))
    assert choose(PANDA, checkpoint, Gradual())[0] == "int8"


def test_the_fastest_of_several_is_taken(checkpoint: Checkpoint) -> None:
    for faster, slower in (("int8", "bf16"), ("bf16", "int8")):
        keep(report(checkpoint, faster, seconds=5.0))  # type: ignore[arg-type]
        keep(report(checkpoint, slower, seconds=9.0))  # type: ignore[arg-type]
        assert choose(PANDA, checkpoint, Gradual())[0] == faster


def test_what_is_offered_on_request_only_is_not_taken(checkpoint: Checkpoint) -> None:
    keep(report(checkpoint, "fp16"))
    assert choose(PANDA, checkpoint, Gradual())[0] == "fp32"


def test_a_device_without_float32_keeps_its_default(checkpoint: Checkpoint) -> None:
    assert choose(PANDA, checkpoint, Halves()) == ("fp16", "fp16: 'cpu' computes in nothing else here")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.onnx", "model.safetensors"])
def test_a_report_of_other_files_does_not_count(checkpoint: Checkpoint, name: str) -> None:
    keep(report(checkpoint))
    before = identity(checkpoint)
    path = checkpoint.folder / name
    if path.suffix == ".json":
        path.write_bytes(path.read_bytes() + b" ")
    elif path.suffix == ".safetensors":  # a byte at its end would make it a damaged file
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        onnx = pytest.importorskip("onnx")
        model = onnx.load(str(path), load_external_data=False)
        model.producer_name = "another"
        path.write_bytes(model.SerializeToString())
    assert identity(checkpoint) != before
    assert choose(PANDA, checkpoint, Gradual())[0] == "fp32"


def test_a_report_of_another_device_or_model_does_not_count(checkpoint: Checkpoint) -> None:
    keep(replace(report(checkpoint), device="openvino"))
    keep(replace(report(checkpoint), model="bge-reranker-v2-m3"))
    assert choose(PANDA, checkpoint, Gradual())[0] == "fp32"


def test_the_same_files_elsewhere_have_the_same_reports(checkpoint: Checkpoint, tmp_path: Path) -> None:
    keep(report(checkpoint))
    shutil.copytree(checkpoint.folder, tmp_path / "copy")
    assert choose(PANDA, Checkpoint(folder=tmp_path / "copy", served_by="a test"), Gradual())[0] == "int8"


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_damaged_report_is_none_and_is_named(
    checkpoint: Checkpoint, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = keep(report(checkpoint))
    path.write_text(text, encoding="utf-8")
    assert choose(PANDA, checkpoint, Gradual())[0] == "fp32"
    assert str(path) in caplog.text


def test_a_report_under_anothers_name_does_not_count(checkpoint: Checkpoint) -> None:
    path = keep(report(checkpoint))
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "files": {**content["files"], "config.json": "0"}}), encoding="utf-8")
    assert choose(PANDA, checkpoint, Gradual())[0] == "fp32"


def test_run_and_verify_take_it_and_say_why(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    pytest.importorskip("sympy", reason="fusing needs it")
    pytest.importorskip("onnx", reason="the int8 file is made with onnx")
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: True)
    words = (PANDA, "--target", "cpu", "--precision", "auto")
    plain = zoo("run", *words)
    assert plain.exit_code == 0, plain.stderr
    assert "precision: fp32, because int8 has no quality report" in plain.stderr
    assert plain.stdout == zoo("run", PANDA, "--target", "cpu").stdout

    keep(report(Checkpoint(folder=tiny, served_by="a test")))
    chosen = zoo("run", *words)
    assert chosen.exit_code == 0, chosen.stderr
    assert "precision: int8, 2.50 times as fast as fp32, rank correlation 0.9950" in chosen.stderr
    assert chosen.stdout == zoo("run", PANDA, "--target", "cpu", "--precision", "int8").stdout != plain.stdout

    verified = zoo("verify", *words, "--pairs-only", "--no-torch", "--json")
    facts = json.loads(verified.stdout)["device"]
    assert facts["precision"] == "int8"
    assert facts["precision_reason"].startswith("int8, 2.50 times")

    valid = zoo("run", *words, "--mode", "valid", "--limit", "1", "--top-k", "2", "--json")
    assert json.loads(valid.stdout)["device"]["precision_reason"].startswith("int8, 2.50 times")


def test_export_takes_it_and_a_measurement_on_too_few_queries_is_no_evidence(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, exported: Path, tmp_path: Path
) -> None:
    pytest.importorskip("sympy", reason="fusing needs it")
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: True)
    folder = exported_only(exported, tmp_path / "exported")
    words = ("export", PANDA, "--config-path", folder, "--target", "cpu")
    measured = zoo(*words, "--precision", "int8", "--quality", "mldr-mini", "--quality-queries", "1", "--json")
    assert measured.exit_code == 0, measured.stderr
    assert "outside the bound of precision 'auto': measured on 2 queries, 50 are needed" in measured.stderr
    content = json.loads(measured.stdout)
    assert content["precision"] == "int8"
    assert json.loads(Path(content["quality_report"]).read_text(encoding="utf-8"))["collections"] == content["quality"]
    cautious = zoo(*words, "--precision", "auto", "--json")
    assert cautious.exit_code == 0, cautious.stderr
    assert "precision: fp32, because int8 is outside the bound: measured on 2 queries" in cautious.stderr
    assert json.loads(cautious.stdout)["precision"] == "fp32"

    keep(report(Checkpoint(folder=folder, served_by="a test")))
    chosen = zoo(*words, "--precision", "auto", "--json")
    assert chosen.exit_code == 0, chosen.stderr
    assert json.loads(chosen.stdout)["precision"] == "int8"
    assert "precision: int8, 2.50 times" in chosen.stderr


def test_auto_with_a_file_of_its_own_or_against_half_is_a_usage_error(zoo: Zoo, exported: Path) -> None:
    for command in ("run", "verify"):
        words = (command, PANDA, "--precision", "auto")
        assert zoo(*words, "--ckpt", exported / "model.onnx").exit_code == 2
        assert zoo(*words, "--half").exit_code == 2
    assert zoo("export", PANDA, "--precision", "auto", "--quality", "mldr-mini").exit_code == 2


def test_the_bound_in_the_help_and_the_documentation_is_the_one_that_is_kept(zoo: Zoo) -> None:
    told = " ".join(zoo("run", "--help").stdout.split())
    assert (
        f"rank correlation {precision.LEAST_SPEARMAN} or more, nDCG@10 at most {precision.LARGEST_LOSS} lower" in told
    )


def test_a_collection_whose_chosen_queries_have_no_candidates_is_named_before_anything_is_scored(
    tmp_path: Path,
) -> None:
    folder = small_collection.beir(tmp_path / "small")
    rest = {query: found for query, found in small_collection.CANDIDATES.items() if query != "q1"}
    text = small_collection.first_stage("small", "small", search_results=rest)
    small_collection.write(folder / "small-test.json", text)
    settings = RunSettings(model=PANDA, precision="fp16", target="cpu")
    with pytest.raises(
        ZooError, match=r"small/small-test has no candidates for the queries that were chosen.*'q1'.*choose more"
    ):
        measure(Catalogue.installed(), settings, DataRequest(data_path=folder, limit=1))
