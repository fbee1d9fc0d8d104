"""The device ``openvino`` as a user meets it, with and without its extra. What it computes is in test_device_contract."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Zoo
from zoo.errors import NotInstalledError, ZooError
from zoo.types import Artifact, SessionOptions
from zoo_openvino.device import OpenVinoDevice

installed = importlib.util.find_spec("openvino") is not None


def open_with(path: Path, **options: object) -> Callable[[], object]:
    settings = SessionOptions(precision="fp32", batch_size=1, max_length=8, **options)  # type: ignore[arg-type]
    return lambda: OpenVinoDevice().open(Artifact(model=path, precision="fp32", origin="test"), settings)


@pytest.mark.parametrize(("flags", "native"), [("fpu avx512_bf16 rdtscp", True), ("fpu avx2", False)])
def test_bf16_is_offered_where_the_cpu_computes_in_it(tmp_path: Path, flags: str, native: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    precisions = OpenVinoDevice(tmp_path / "cpuinfo").precisions
    assert next(iter(precisions)) == "fp32"
    assert precisions["bf16"].offered is native
    assert "scores move" in precisions["bf16"].cost
    assert ("no faster here" in precisions["bf16"].cost) is not native


def test_a_system_that_does_not_list_flags_is_offered_float32(tmp_path: Path) -> None:
    assert not OpenVinoDevice(tmp_path / "absent").precisions["bf16"].offered


@pytest.mark.skipif(installed, reason="the extra 'openvino' is installed")
def test_without_the_extra_it_says_what_to_install(zoo: Zoo, tmp_path: Path) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--target", "openvino")
    assert result.exit_code == 1
    assert "pip install 'zoo-runner[openvino]'" in result.stderr
    with pytest.raises(NotInstalledError, match="zoo-runner"):
        open_with(tmp_path / "model.onnx")()


@pytest.mark.skipif(not installed, reason="the extra 'openvino' is not installed")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"selector": "1"}, "not openvino:1"),
        ({"extra": {"lane": "all"}}, "Did you mean 'lanes'"),
        ({"extra": {"lanes": "two"}}, "it takes auto, one, all"),
        ({}, "there is no model file"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(ZooError, match=said):
        open_with(tmp_path / "model.onnx", **options)()


@pytest.mark.skipif(not installed, reason="the extra 'openvino' is not installed")
def test_a_file_it_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ZooError, match="cannot open"):
        open_with(tmp_path / "model.onnx")()
