"""The step ``trim``: the same scores from fewer rows, and hands off where every row counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Zoo
from random_checkpoints import make_checkpoint
from small_graphs import HEADS, WIDTH, encoder
from zoo.export.process import Job

pytestmark = [pytest.mark.export]

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
ort = pytest.importorskip("onnxruntime")


def run(model: Any, rows: int, length: int) -> dict[str, Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(length).standard_normal((rows, length, WIDTH)).astype(np.float32)
    return dict(zip([out.name for out in session.get_outputs()], session.run(None, {"x": x}), strict=True))


def watched(model: Any, *names: str) -> Any:
    """The model with tensors from its inside among its outputs."""
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    return model


def narrowed(model: Any) -> tuple[Any, int]:
    from zoo_onnx.first_token_only import narrow

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, narrow(copy)


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 7), (2, 64)])
def test_behind_the_attention_one_row_is_computed_and_scores_stay(rows: int, length: int) -> None:
    model = encoder("first")
    trimmed, count = narrowed(model)
    onnx.checker.check_model(trimmed, full_check=True)
    assert count == 7, (
        "the query, two products and the softmax of the attention, the projection, both of the feed-forward block"
    )
    expected = run(model, rows, length)["logits"]
    inside = run(watched(trimmed, "active", "probabilities", "projected"), rows, length)
    np.testing.assert_allclose(inside["logits"], expected, rtol=1e-5, atol=1e-5)
    assert inside["active"].shape == (rows, 1, 16)
    assert inside["projected"].shape == (rows, 1, WIDTH)
    assert inside["probabilities"].shape == (rows, HEADS, 1, length), "the first token still looks at every other"


@pytest.mark.parametrize(
    ("pooling", "also"), [("mean", ""), ("first", "hidden")], ids=["mean pooling", "hidden states are an output"]
)
def test_a_graph_that_needs_every_row_is_left_alone(pooling: str, also: str) -> None:
    model = encoder(pooling, also=also)
    trimmed, count = narrowed(model)
    assert count == 0
    assert trimmed == model


def test_a_tensor_that_is_read_elsewhere_too_is_cut_and_not_shrunk() -> None:
    model = encoder("first", also="middle")
    trimmed, count = narrowed(model)
    assert count == 2, "the feed-forward block alone"
    before, after = run(model, 2, 9), run(trimmed, 2, 9)
    np.testing.assert_allclose(after["logits"], before["logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(after["middle"], before["middle"])


@pytest.mark.parametrize("full", [False, True], ids=["bare", "biases, scales and a mask"])
@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 7), (2, 64)])
def test_the_last_attention_has_no_keys_and_values_and_scores_stay(full: bool, rows: int, length: int) -> None:
    from zoo_onnx.fold_kv import fold

    model = encoder("first", full=full)
    trimmed, count = narrowed(model)
    assert count == 7
    assert fold(trimmed)
    onnx.checker.check_model(trimmed, full_check=True)
    made = {name for node in trimmed.graph.node for name in node.output}
    assert not made & {"k0", "v0", "k", "v"}
    inside = run(watched(trimmed, "q0", "mixed"), rows, length)
    np.testing.assert_allclose(inside["logits"], run(model, rows, length)["logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        inside["mixed"], run(watched(model, "mixed"), rows, length)["mixed"][:, :, :1], rtol=1e-4, atol=1e-5
    )
    assert inside["q0"].shape == (rows, 1, WIDTH)
    assert not fold(trimmed), "once is all"


@pytest.mark.parametrize("also", ["k0", "v", "probabilities"])
def test_keys_and_values_that_are_read_elsewhere_too_are_computed(also: str) -> None:
    from zoo_onnx.fold_kv import fold

    trimmed, _ = narrowed(encoder("first", also=also, full=True))
    before = trimmed.SerializeToString()
    assert not fold(trimmed)
    assert trimmed.SerializeToString() == before


def test_keys_of_many_queries_are_computed() -> None:
    from zoo_onnx.fold_kv import fold

    assert not fold(encoder("mean", full=True))


@pytest.mark.parametrize("owner", ["the step before", "the user"])
@pytest.mark.parametrize("smallest", [100, 0], ids=["weights", "constants too, as past 2 GB"])
def test_weights_in_a_file_of_their_own_are_moved_and_a_users_are_copied(
    tmp_path: Path, owner: str, smallest: int
) -> None:
    from zoo_onnx.first_token_only import trim

    target = tmp_path / "work" / "2-trim"
    source = (target.with_name("1-export") if owner == "the step before" else tmp_path / "own") / "model.onnx"
    target.mkdir(parents=True)
    source.parent.mkdir()
    model = encoder("first")
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == "zero")
    model.graph.initializer.remove(zero)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["zero"], value=zero))
    onnx.save(
        model, str(source), save_as_external_data=True, location="weights.bin", size_threshold=smallest, convert_attribute=True
    )  # fmt: skip
    weights = source.with_name("weights.bin").read_bytes()
    job = Job(name="first-token-only", model=source, target=target, reference=target)
    assert trim(job)["note"] == "7 nodes compute the first token only, and no keys and values for it"
    assert {path.name for path in target.iterdir()} == {"model.onnx", "weights.bin"}
    assert (target / "weights.bin").read_bytes() == weights
    assert source.with_name("weights.bin").exists() == (owner == "the user")
    session = ort.InferenceSession(str(job.output), providers=["CPUExecutionProvider"])
    x = np.ones((1, 3, WIDTH), np.float32)
    expected = ort.InferenceSession(encoder("first").SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["xlm-roberta", "bert"])
def test_a_real_export_loses_its_last_layers_needless_rows_and_has_its_attentions_joined(
    zoo: Zoo, tmp_path: Path, family: str
) -> None:
    make_checkpoint(tmp_path / family, family)
    words = (
        "export",
        "bge-reranker-v2-m3",
        "--config-path",
        tmp_path / family,
        "--target",
        "cpu",
        "--exporter",
        "optimum",
        "--json",
    )
    result = zoo(*words)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [step["name"] for step in report["steps"]] == ["export (optimum)", "first-token-only", "flash"]
    assert report["steps"][1]["note"] == "7 nodes compute the first token only, and no keys and values for it"
    layers = json.loads((tmp_path / family / "config.json").read_text())["num_hidden_layers"]
    assert report["steps"][2]["note"] == f"{layers - 1} attentions joined"
    assert all(step["max_rel_error"] < 1e-5 for step in report["steps"][1:])
    whole = json.loads(zoo(*words, "--optimize", "none").stdout)
    assert [step["name"] for step in whole["steps"]] == ["export (optimum)"]
