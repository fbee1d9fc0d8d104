"""Files name other files: what lies outside the folder they belong to is refused before anything of it is read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT, Zoo
from random_checkpoints import weights_only
from zoo.checkpoints.files import weight_files
from zoo.checkpoints.onnx_files import read_onnx
from zoo.checkpoints.resolve import check_name
from zoo.errors import InputError, ZooError
from zoo.export import manifest
from zoo.registry.card import load_card
from zoo.registry.catalogue import Catalogue
from zoo_cross_encoder.module_head import ModuleHead

pytestmark = pytest.mark.lowest

OUTSIDE = [
    "../planted", "/etc/passwd", "..", ".", "a/../../planted", "a/b", "C:planted", "..\\planted", "planted\x00", "\ud800", "a" * 300, "",
]  # fmt: skip
"""Names that no file directly inside a folder has."""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder beside a FIFO that nobody writes to: whoever opens it hangs, and the test with it."""
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "planted")
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


def written(folder: Path, change: dict[str, Any]) -> Path:
    sys.path.insert(0, str(ROOT / "tests" / "fuzz"))
    from readers import written_manifest

    written_manifest(folder)
    path = folder / manifest.NAME
    content = {**json.loads(path.read_text(encoding="utf-8")), **change}
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_names_files_of_its_own_folder(name: str, planted: Path) -> None:
    record = {"size": 1, "sha256": "0" * 64}
    with pytest.raises(InputError):
        manifest.read(written(planted, {"graph": name, "files": {name: record}}))
    with pytest.raises(InputError):
        manifest.read(written(planted, {"files": {"model.onnx": record, name: record}}))
    with pytest.raises(InputError):
        manifest.read(written(planted, {"borrowed": {name: {"path": "/x", **record}}}))


def test_a_manifest_that_says_something_twice_is_refused(planted: Path) -> None:
    path = written(planted, {}) / manifest.NAME
    path.write_text(path.read_text(encoding="utf-8").replace('{"', '{"graph": "other.onnx", "', 1), encoding="utf-8")
    with pytest.raises(InputError, match="'graph' is there twice"):
        manifest.read(planted)


@pytest.mark.slow
def test_a_planted_folder_of_weights_is_not_read(zoo: Zoo, tiny: Path, tmp_path: Path) -> None:
    """The cached graph borrows its weights; a manifest that says they lie elsewhere is not believed, even if sizes and names fit."""
    checkpoint = weights_only(tiny, tmp_path / "checkpoint")
    words = ("run", str(checkpoint), "--mode", "single", "--json", "--target", "cpu")
    first = zoo(*words)
    assert first.exit_code == 0, first.stderr
    [path] = (tmp_path / "zoo-home").rglob(manifest.NAME)
    content = json.loads(path.read_text(encoding="utf-8"))
    if not content["weights_folder"]:
        pytest.skip("this version of ONNX Runtime reads weights through links beside the graph")
    other = tmp_path / "other"
    other.mkdir()
    raw = bytearray((checkpoint / "model.safetensors").read_bytes())
    raw[-4000:] = bytes(4000)
    (other / "model.safetensors").write_bytes(raw)
    path.write_text(json.dumps({**content, "weights_folder": str(other)}), encoding="utf-8")
    again = zoo(*words)
    assert again.exit_code == 0, again.stderr
    assert "names weights that are not its own: making it again" in again.stderr
    assert again.stdout == first.stdout


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_names_shards_of_its_own_folder(name: str, planted: Path) -> None:
    index = planted / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": name}}), encoding="utf-8")
    (planted / "model-1.safetensors").touch()
    with pytest.raises(ZooError, match=r"index\.json"):
        weight_files(planted)


@pytest.mark.parametrize("name", OUTSIDE)
def test_modules_are_folders_of_their_own_checkpoint(name: str, planted: Path) -> None:
    (planted / "config.json").write_text(json.dumps({"model_type": "modernbert"}), encoding="utf-8")
    kinds = ["Transformer", "Pooling", "Dense", "LayerNorm", "Dense"]
    modules = [
        {"path": name if number == 1 else f"{number}_{kind}", "type": f"x.{kind}"} for number, kind in enumerate(kinds)
    ]
    (planted / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(InputError):
        ModuleHead.read(planted)


def external(place: str) -> bytes:
    """The bytes of an ONNX model of one node, with one tensor whose data lies at ``place``."""

    def field(number: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 0x7F:
            size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    location = field(1, b"location") + field(2, place.encode())
    tensor = b"\x10\x01" + field(8, b"w") + field(13, location) + b"\x70\x01"
    return field(7, field(1, field(4, b"Identity")) + field(5, tensor))


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name not in ("\ud800", "a/b")])
def test_a_graph_has_its_weights_in_its_own_folder_or_below(name: str, planted: Path) -> None:
    (planted / "model.onnx").write_bytes(external(name))
    with pytest.raises(InputError, match="outside its folder"):
        read_onnx(planted / "model.onnx")


@pytest.mark.parametrize("place", ["weights.bin", "./weights.bin", "a/b"])
def test_a_graph_may_have_weights_beside_it(place: str, planted: Path) -> None:
    (planted / "model.onnx").write_bytes(external(place))
    assert read_onnx(planted / "model.onnx").external == {place}


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name not in ("\ud800", "a/b", "")])
def test_a_cards_checkpoint_lies_in_the_cards_own_folder(name: str, planted: Path) -> None:
    keys = {
        "description": "d",
        "architecture": "a",
        "license": "MIT",
        "languages": ["en"],
        "max_length": 8,
        "bundled": name,
    }
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    (planted / "card.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        load_card(planted / "card.toml")


@pytest.mark.parametrize(
    "name",
    [
        "hf:a/..",
        "hf:a/.",
        "hf:../b",
        "hf:a/b@../../x",
        "hf:a/b@/x",
        "hf:a/b/c",
        "hf:a\\b",
        "hf:ａ/b",
        "hf:a/b\n",
        "hf:",
        "hf:a",
    ],
)
def test_a_repository_is_no_path(name: str) -> None:
    with pytest.raises(ZooError, match="is not a repository on the hub"):
        check_name(Catalogue.installed(), name)


def test_a_home_of_nobody_is_a_path_that_is_not_there(zoo: Zoo) -> None:
    result = zoo("run", "~nobody-of-this-name/x", "--mode", "single")
    assert result.exit_code == 1
    assert "there is no model card or folder ~nobody-of-this-name/x" in result.stderr
    result = zoo("run", "zoo-reranker-tiny", "--mode", "single", "--data-path", "~nobody-of-this-name/x")
    assert result.exit_code == 1
    assert "no such file" in result.stderr
