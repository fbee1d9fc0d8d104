"""The export without torch as a command does it: weights borrowed, proven, and noticed when they change."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import direct_checkpoints as direct
from conftest import Zoo
from random_checkpoints import make_tokenizer
from zoo.export.proof import FLOOR
from zoo.export.store import Store

MODEL = "bge-reranker-v2-m3"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint", {})


def make_checkpoint(folder: Path, change: direct.Config) -> Path:
    folder.mkdir()
    size = make_tokenizer(folder, "xlm-roberta")
    direct.write(
        folder,
        {
            **direct.ROBERTA,
            "model_type": "xlm-roberta",
            "vocab_size": size,
            "pad_token_id": 1,
            "max_position_embeddings": 514,
            **change,
        },
    )
    return folder


OPEN = """
import sys
from zoo import Reranker

with Reranker.open("bge-reranker-v2-m3", checkpoint=sys.argv[1], device="cpu", device_options={"weights": sys.argv[2]}) as reranker:
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    print(next(line for line in lines if line.startswith("Anonymous")).split()[1], *reranker.score([("a", "b c")]))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell what is private")
def test_shared_weights_take_no_memory_of_a_process_own(tmp_path: Path, python: str) -> None:
    config = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": 8}
    folder = make_checkpoint(tmp_path / "checkpoint", config)
    found = {}
    for weights in ("packed", "shared"):
        command = [python, "-c", OPEN, str(folder), weights]
        found[weights] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    matrices = 4 * 8 * (4 * 384**2 + 2 * 384 * 1536)
    assert int(found["shared"][0]) * 1024 < int(found["packed"][0]) * 1024 - 0.7 * matrices
    assert float(found["shared"][1]) == pytest.approx(float(found["packed"][1]), abs=1e-5)


def logits(zoo: Zoo, folder: Path, *words: str) -> tuple[list[float], str]:
    result = zoo("run", MODEL, "--config-path", folder, "--target", "cpu", "--json", *words)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line)["logit"] for line in result.stdout.splitlines()], result.stderr


def test_weights_are_borrowed_and_the_graph_is_proven_by_numpy(zoo: Zoo, checkpoint: Path) -> None:
    first, said = logits(zoo, checkpoint)
    assert "step 1 of 1: export (direct)" in said
    assert "largest difference from numpy" in said
    again, said = logits(zoo, checkpoint)
    assert "cached, made" in said
    assert again == first
    [row] = json.loads(zoo("cache", "list", "--json").stdout)["artifacts"]
    assert row["size"] < 300_000, "the graph alone"
    assert list(row["borrowed"].values()) == [str((checkpoint / "model.safetensors").resolve())]
    assert zoo("cache", "verify").exit_code == 0


def test_a_small_model_is_made_in_this_process_and_a_large_one_in_another(
    zoo: Zoo, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, popen = [], subprocess.Popen

    def counted(*args: Any, **given: Any) -> Any:
        started.append(args)
        return popen(*args, **given)

    monkeypatch.setattr("zoo.export.process.subprocess.Popen", counted)
    small, _ = logits(zoo, checkpoint)
    assert not started
    large = tmp_path / "large"
    with large.open("wb") as handle:
        handle.truncate(65 << 20)
    monkeypatch.setattr("zoo.export.run_steps.weight_files", lambda folder: [large])
    shutil.rmtree(Store().root)
    assert logits(zoo, checkpoint)[0] == small
    assert len(started) == 1, "the graph, what it is compared with, and the comparison"


def test_weights_that_change_after_the_proof_are_proven_again(zoo: Zoo, checkpoint: Path) -> None:
    before, _ = logits(zoo, checkpoint)
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    numbers = np.frombuffer(content, np.float32, offset=len(content) - 400)
    numbers[:] = numbers * np.float32(1.5) + np.float32(0.01)
    path.write_bytes(content)
    after, said = logits(zoo, checkpoint)
    assert "step 1 of 1: export (direct)" in said
    assert after != before


def test_a_header_that_is_off_by_a_byte_is_refused_and_nothing_is_scored(zoo: Zoo, checkpoint: Path) -> None:
    logits(zoo, checkpoint)
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    path.write_bytes((size - 1).to_bytes(8, "little") + content[8:])
    result = zoo("run", MODEL, "--config-path", checkpoint, "--target", "cpu")
    assert result.exit_code == 1
    assert "safetensors" in result.stderr
    assert result.stdout == ""


def test_weights_that_lie_elsewhere_now_are_found_there(zoo: Zoo, checkpoint: Path, tmp_path: Path) -> None:
    first, _ = logits(zoo, checkpoint)
    moved = tmp_path / "moved"
    shutil.move(checkpoint, moved)
    assert logits(zoo, moved)[0] == first


def test_a_snapshot_of_links_is_read_through_them(zoo: Zoo, checkpoint: Path, tmp_path: Path) -> None:
    first, _ = logits(zoo, checkpoint)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for number, path in enumerate(sorted(checkpoint.iterdir())):
        (blobs / f"{number:040x}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blobs / f"{number:040x}")
    shutil.rmtree(checkpoint)
    assert logits(zoo, snapshot)[0] == first


def test_an_unknown_key_of_the_config_is_named_with_the_way_out(
    zoo: Zoo, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"hidden_act": "swish_of_mine"}))
    monkeypatch.setattr("zoo.export.modules.found", lambda module: False)
    result = zoo("run", MODEL, "--config-path", checkpoint, "--target", "cpu")
    assert result.exit_code == 1
    assert "swish_of_mine" in result.stderr
    assert "optimum" in result.stderr


def test_an_export_into_a_folder_links_if_asked(zoo: Zoo, checkpoint: Path, tmp_path: Path) -> None:
    first, _ = logits(zoo, checkpoint)
    output = tmp_path / "out"
    done = zoo("export", MODEL, "--config-path", checkpoint, "--target", "cpu", "--output", output, "--link")
    assert done.exit_code == 0, done.stderr
    assert (output / "model.safetensors").samefile(checkpoint / "model.safetensors")
    assert not (output / "tokenizer.json").samefile(checkpoint / "tokenizer.json")
    assert logits(zoo, output)[0] == first
    assert zoo("export", MODEL, "--config-path", checkpoint, "--link").exit_code == 2


def test_weights_that_cannot_be_linked_leave_nothing(
    zoo: Zoo, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refused)
    words = ("--config-path", checkpoint, "--target", "cpu", "--output", tmp_path / "out", "--link")
    result = zoo("export", MODEL, *words)
    assert result.exit_code == 1
    assert "cannot be linked" in result.stderr
    assert "--link" in result.stderr
    assert not list(tmp_path.glob("*out*"))
    assert not list(tmp_path.glob("zoo-partial*"))


@pytest.mark.parametrize("link", [(), ("--link",)], ids=["copied", "linked"])
def test_weights_of_an_exported_folder_that_change_are_proven_again(
    zoo: Zoo, checkpoint: Path, tmp_path: Path, link: tuple[str, ...]
) -> None:
    output = tmp_path / "out"
    zoo("export", MODEL, "--config-path", checkpoint, "--target", "cpu", "--output", output, *link)
    before, said = logits(zoo, output)
    assert "is not as it was" not in said
    path = (checkpoint if link else output) / "model.safetensors"
    with path.open("r+b") as handle:
        handle.seek(-401, 2)
        byte = handle.read(1)
        handle.seek(-401, 2)
        handle.write(bytes([byte[0] ^ 2]))  # in an exponent
    after, said = logits(zoo, output)
    assert "model.safetensors is not what was written" in said
    assert "step 1 of 1: export (direct)" in said
    assert after != before


@pytest.mark.parametrize("dot_product", [True, False], ids=["with-vnni", "without"])
def test_int8_is_made_without_any_extra(
    zoo: Zoo, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, dot_product: bool
) -> None:
    monkeypatch.setattr("zoo.export.modules.found", lambda module: False)
    monkeypatch.setattr("zoo_cpu.device._multiplies_int8", lambda: dot_product)
    exact, _ = logits(zoo, checkpoint)
    rounded, said = logits(zoo, checkpoint, "--precision", "int8")
    assert "step 1 of 1: export (direct)" in said
    assert "(allowed 0.5)" in said
    assert 0 < np.abs(np.subtract(exact, rounded)).max() < 0.05 * max(np.abs(exact).max(), FLOOR)
    [row] = [
        row for row in json.loads(zoo("cache", "list", "--json").stdout)["artifacts"] if row["precision"] == "int8"
    ]
    assert not row["borrowed"]


@pytest.mark.openvino
def test_int8_weights_for_openvino_are_made_without_onnx(
    zoo: Zoo, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    monkeypatch.setattr("zoo.export.modules.found", lambda module: False)
    exact, _ = logits(zoo, checkpoint)
    rounded, said = logits(zoo, checkpoint, "--target", "openvino", "--precision", "int8")
    assert "it does first-token-only and weight-only-int8 itself" in said
    assert 0 < np.abs(np.subtract(exact, rounded)).max() < 0.05 * max(np.abs(exact).max(), FLOOR)


def test_int8_is_made_from_the_weights_although_a_model_file_lies_beside_them(zoo: Zoo, checkpoint: Path) -> None:
    from zoo_direct.build import write_graph

    (checkpoint / "model.onnx").write_bytes(write_graph(checkpoint, form="standard", head=direct.LABEL).model)
    _, said = logits(zoo, checkpoint, "--precision", "int8")
    assert "step 1 of 1: export (direct)" in said
    _, said = logits(zoo, checkpoint)
    assert "in the checkpoint" in said


def test_an_export_into_a_folder_copies_the_weights(zoo: Zoo, checkpoint: Path, tmp_path: Path) -> None:
    first, _ = logits(zoo, checkpoint)
    output = tmp_path / "out"
    done = zoo("export", MODEL, "--config-path", checkpoint, "--target", "cpu", "--output", output)
    assert done.exit_code == 0, done.stderr
    shutil.rmtree(checkpoint)
    shutil.rmtree(Store().root)
    assert logits(zoo, output)[0] == first


def test_an_export_that_was_killed_at_its_very_end_is_there_and_nothing_else_is_taken_for_it(
    zoo: Zoo, checkpoint: Path, tmp_path: Path
) -> None:
    """The folder appears whole; a process that is killed behind that has only not said so."""
    output = tmp_path / "out"
    words = ("export", MODEL, "--config-path", checkpoint, "--target", "cpu", "--output", output)
    first = zoo(*words)
    times = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    again = zoo(*words)
    assert (again.exit_code, again.stdout) == (0, first.stdout), again.stderr
    assert "holds it already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == times
    made = {path.name for path in Store().folders()}
    other = zoo(*words, "--precision", "int8")
    assert other.exit_code == 1
    assert "exists and is not empty" in other.stderr
    assert {path.name for path in Store().folders()} == made, "nothing was made only to be refused"
    (output / "config.json").write_text((output / "config.json").read_text() + "\n")
    assert "exists and is not empty" in zoo(*words).stderr
