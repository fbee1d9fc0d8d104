"""The device ``openvino`` as a user meets it, with and without its extra. What it computes is in test_device_contract."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Zoo
from random_checkpoints import exported_only
from zoo.errors import NotInstalledError, ZooError
from zoo.types import Artifact, SessionOptions
from zoo_openvino.device import OpenVinoDevice

pytestmark = [pytest.mark.openvino]

installed = importlib.util.find_spec("openvino") is not None
MISSING = "the extra 'openvino' is not installed"
PANDA = ("run", "zoo-reranker-tiny", "--target", "openvino", "--json")


def open_with(path: Path, **options: object) -> Callable[[], object]:
    settings = SessionOptions(precision="fp32", batch_size=1, max_length=8, **options)  # type: ignore[arg-type]
    return lambda: OpenVinoDevice().open(Artifact(model=path, precision="fp32", origin="test"), settings)


NATIVE = [
    ("fpu avx512bw avx512_bf16 avx512_vnni rdtscp", {"bf16", "int8"}),
    ("fpu avx512bw avx512_vnni", {"int8"}),
    ("fpu avx512bw amx_bf16", {"bf16"}),
    ("fpu avx2 avx_vnni", {"int8"}),
    ("fpu avx2", set()),
]


@pytest.mark.parametrize(("flags", "native"), NATIVE)
def test_a_precision_is_offered_where_the_cpu_computes_in_it(tmp_path: Path, flags: str, native: set[str]) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    precisions = OpenVinoDevice(tmp_path / "cpuinfo").precisions
    possible = ["fp32", "bf16", "int8"] if "avx512bw" in flags else ["fp32", "int8"]
    assert list(precisions) == possible, "without AVX-512 what is called bf16 would be float32"
    assert precisions["fp32"].offered
    for name in possible[1:]:
        info = precisions[name]  # type: ignore[index]
        assert info.offered is (name in native)
        assert "scores move" in info.cost
        assert "a quality report on labelled data tells by how much" in info.cost
        assert ("no faster here" in info.cost) is (name not in native)


def test_a_system_that_does_not_list_flags_is_offered_float32(tmp_path: Path) -> None:
    precisions = OpenVinoDevice(tmp_path / "absent").precisions
    assert [name for name, info in precisions.items() if info.offered] == ["fp32"]


@pytest.mark.skipif(not installed, reason=MISSING)
@pytest.mark.parametrize(("flags", "native"), NATIVE)
def test_the_probe_says_what_is_native(tmp_path: Path, flags: str, native: set[str]) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    assert OpenVinoDevice(tmp_path / "cpuinfo").probe().details["native"] == ", ".join(["fp32", *sorted(native)])


@pytest.mark.skipif(not installed, reason=MISSING)
def test_devices_shows_what_is_native_in_the_table_and_in_json(zoo: Zoo) -> None:
    rows = {row["name"]: row for row in json.loads(zoo("devices", "--json").stdout)}
    table = zoo("devices").stdout
    for name in ("cpu", "openvino"):
        native = rows[name]["details"]["native"]
        assert native.split(", ") == [precision for precision in rows[name]["precisions"] if precision != "fp16"]
        assert re.search(rf"^{name} +yes .*native {native}", table, re.MULTILINE)


@pytest.mark.skipif(installed, reason="the extra 'openvino' is installed")
def test_without_the_extra_it_says_what_to_install(zoo: Zoo, tmp_path: Path) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--target", "openvino")
    assert result.exit_code == 1
    assert "pip install 'zoo-runner[openvino]'" in result.stderr
    with pytest.raises(NotInstalledError, match="zoo-runner"):
        open_with(tmp_path / "model.onnx")()


@pytest.mark.skipif(not installed, reason=MISSING)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"selector": "1"}, "not 'openvino:1'"),
        ({}, "there is no model file"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(ZooError, match=said):
        open_with(tmp_path / "model.onnx", **options)()


@pytest.mark.skipif(not installed, reason=MISSING)
def test_a_file_it_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ZooError, match="is not an ONNX file"):
        open_with(tmp_path / "model.onnx")()


def lower_precisions() -> list[str]:
    """Those that this machine's device has beside float32."""
    return [precision for precision in OpenVinoDevice().precisions if precision != "fp32"]


def logits(zoo: Zoo, *words: object) -> list[float]:
    result = zoo(*words)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line)["logit"] for line in result.stdout.splitlines()]


@pytest.mark.skipif(not installed, reason=MISSING)
def test_lower_precisions_score_near_float32_and_otherwise(zoo: Zoo) -> None:
    right = logits(zoo, *PANDA[:2], "--target", "cpu", "--json")
    assert logits(zoo, *PANDA) == pytest.approx(right, abs=1e-4)
    for precision in lower_precisions():
        scores = logits(zoo, *PANDA, "--precision", precision)
        assert scores != pytest.approx(right, abs=1e-5), f"{precision} is another arithmetic"
        assert scores == pytest.approx(right, abs=0.3), precision
    made = json.loads(zoo("cache", "list", "--json").stdout)["artifacts"]
    recipes = [row["recipe"] for row in made]
    assert recipes.count(["export", "first-token-only"]) == 1, "bf16 runs the file of float32"
    assert (["export", "first-token-only", "weight-only-int8"] in recipes) == ("int8" in lower_precisions())


@pytest.mark.skipif(not installed, reason=MISSING)
def test_an_int8_file_is_made_once_and_runs_from_a_folder_of_its_own(zoo: Zoo, exported: Path, tmp_path: Path) -> None:
    source = exported_only(exported, tmp_path / "exported")
    output = tmp_path / "out"
    words = ("zoo-reranker-tiny", "--target", "openvino", "--precision", "int8")
    made = zoo("export", *words, "--config-path", source, "--output", output)
    assert made.exit_code == 0, made.stderr
    assert "step 2 of 2: weight-only-int8" in made.stderr
    cached = zoo("run", *words, "--config-path", source, "--json")
    assert "cached, made" in cached.stderr
    ran = zoo("run", *words, "--config-path", output, "--json")
    assert ran.exit_code == 0, ran.stderr
    assert "in the checkpoint" in ran.stderr
    assert ran.stdout == cached.stdout


@pytest.mark.skipif(not installed, reason=MISSING)
def test_float32_does_not_pass_for_bf16(zoo: Zoo, exported: Path, tmp_path: Path) -> None:
    if "bf16" in OpenVinoDevice().precisions:
        scores = [
            float(json.loads(line)["logit"])
            for precision in ("fp32", "bf16")
            for line in zoo(*PANDA, "--precision", precision, "--json").stdout.splitlines()
        ]
        lower = np.abs(np.subtract(scores[:2], scores[2:]))
        assert (lower > 1e-3).all()
        assert (lower < 0.24).all()
        return
    refused = zoo(*PANDA, "--precision", "bf16")
    assert refused.exit_code == 1
    assert "cannot run in bf16 here; it runs in fp32, int8" in refused.stderr
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx512bw avx512_bf16\n")
    settings = SessionOptions(precision="bf16", batch_size=1, max_length=8)
    artifact = Artifact(model=exported / "model.onnx", precision="fp32", origin="test")
    with pytest.raises(ZooError, match=r"computes in f32 on this CPU, not in bf16: use fp32"):
        OpenVinoDevice(tmp_path / "cpuinfo").open(artifact, settings)


@pytest.mark.skipif(not installed, reason=MISSING)
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_quality_report_is_made_and_kept_for_auto(zoo: Zoo, exported: Path, tmp_path: Path, precision: str) -> None:
    if precision not in lower_precisions():
        pytest.skip(f"this CPU does not compute in {precision}")
    folder = exported_only(exported, tmp_path / "exported")
    words = ("zoo-reranker-tiny", "--config-path", folder, "--target", "openvino")
    quality = ("--quality", "mldr-mini", "--quality-queries", "2", "--json")
    measured = zoo("export", *words, "--precision", precision, *quality)
    assert measured.exit_code == 0, measured.stderr
    content = json.loads(measured.stdout)
    assert content["precision"] == ("int8" if precision == "int8" else "fp32"), "that of the file"
    for report in content["quality"]:
        assert report["precision"] == precision
        assert 0 < report["max_deviation"] < report["spread"]
        assert report["spearman"] > 0.8
    assert Path(content["quality_report"]).name.startswith(f"zoo-reranker-tiny-openvino-{precision}-")
    auto = zoo("run", *words, "--precision", "auto")
    assert auto.exit_code == 0, auto.stderr
    if precision in json.loads(zoo("devices", "--json").stdout)[-1]["precisions"]:
        assert f"{precision} is outside the bound: measured on 4 queries, 50 are needed" in auto.stderr


@pytest.mark.skipif(not installed, reason=MISSING)
@pytest.mark.parametrize("parallel_batches", ["auto", "one", "all"])
def test_scores_do_not_depend_on_parallel_batches(zoo: Zoo, parallel_batches: str) -> None:
    words = (*PANDA, "--threads", "2", "--batch-size", "2")
    assert logits(zoo, *words, "--device-option", f"parallel_batches={parallel_batches}") == pytest.approx(
        logits(zoo, *words), abs=1e-4
    )


@pytest.mark.skipif(not installed, reason=MISSING)
def test_a_fused_file_is_not_made_for_it_in_int8(zoo: Zoo) -> None:
    refused = zoo("export", "zoo-reranker-tiny", "--target", "openvino", "--precision", "int8", "--optimize", "O2")
    assert refused.exit_code == 1
    assert (
        "'weight-only-int8' needs standard operators alone, and the step 'fuse' before it removes them"
        in refused.stderr
    )
