"""The hub's cache keeps files as links to blobs: a graph and the weights beside it, both links, go through every step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import Zoo

pytestmark = pytest.mark.export

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxsim")

MODEL = "zoo-reranker-tiny"
DEMO = ("-q", "--json")


@pytest.fixture
def snapshot(exported: Path) -> Path:
    """The embedded model as a snapshot: weights of its graph in a file of their own, every file a link to a blob."""
    blobs, folder = Path("cache/blobs"), Path("cache/snapshots/0123")
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    model = onnx.load(exported / "model.onnx")
    onnx.save(model, "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=1024)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(exported / name, name)
    for number, name in enumerate([*Path().glob("*.json"), Path("model.onnx"), Path("model.onnx_data")]):
        name.rename(blobs / f"{number:064x}")
        (folder / name.name).symlink_to(Path("../../blobs") / f"{number:064x}")
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_snapshots_graph_is_run_in_every_precision(precision: str, snapshot: Path, zoo: Zoo) -> None:
    words = ("run", MODEL, *DEMO, "--target", "cpu", "--precision", precision)
    result = zoo(*words, "--config-path", snapshot)
    assert result.exit_code == 0, result.stderr
    by_file = zoo(*words, "--ckpt", snapshot / "model.onnx", "--config-path", snapshot)
    assert by_file.exit_code == 0, by_file.stderr
    assert by_file.stdout == result.stdout
    assert (snapshot / "model.onnx").is_symlink()
    assert (snapshot / "model.onnx_data").resolve().is_file()


@pytest.mark.parametrize("external", [(), ("--save-as-external-data",)], ids=["one file", "weights beside it"])
def test_it_is_simplified(external: tuple[str, ...], snapshot: Path, zoo: Zoo) -> None:
    result = zoo("simplify", snapshot / "model.onnx", "--save-name", "out.onnx", *external)
    assert result.exit_code == 0, result.stderr
    assert zoo("run", MODEL, *DEMO, "--ckpt", "out.onnx").exit_code == 0


def test_it_is_exported_into_a_folder_that_stands_alone(snapshot: Path, zoo: Zoo) -> None:
    words = ("--config-path", snapshot, "--precision", "int8", "--target", "cpu", "--output", "alone")
    result = zoo("export", MODEL, *words)
    assert result.exit_code == 0, result.stderr
    shutil.rmtree("cache")
    again = zoo("run", MODEL, *DEMO, "--target", "cpu", "--precision", "int8", "--config-path", "alone")
    assert again.exit_code == 0, again.stderr
