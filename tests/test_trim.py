"""The step ``trim``: the same scores from fewer rows, and hands off where every row counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import make_checkpoint
from conftest import Zoo
from zoo_optimum.process import Job

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
ort = pytest.importorskip("onnxruntime")
WIDTH, HEADS = 8, 2


def encoder(pooling: str, *, also: str = "") -> Any:
    """One transformer layer over (batch, token, 8) embeddings ``x`` and its head; ``also`` names a tensor to give out beside the score."""
    make = onnx.helper.make_node
    random = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("wq", "wk", "wv", "wo"), (8, 8))
    shapes |= {"up": (8, 16), "b": (16,), "down": (16, 8), "g": (8,), "h": (8,), "head": (8, 1)}
    weights: dict[str, Any] = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"split": np.array([0, -1, HEADS, 4]), "zero": np.array(0), "one": np.array([1]), "eight": np.array([8])}
    heads = [
        node
        for name in "qkv"
        for node in (
            make("MatMul", ["x", f"w{name}"], [f"{name}0"]),
            make("Reshape", [f"{name}0", "split"], [f"{name}1"]),
            make("Transpose", [f"{name}1"], [name], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]),
        )
    ]
    nodes = [
        *heads,
        make("MatMul", ["q", "k"], ["scores"]),
        make("Softmax", ["scores"], ["probabilities"], axis=-1),
        make("MatMul", ["probabilities", "v"], ["mixed"]),
        make("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        make("Shape", ["x"], ["shape"], start=0, end=2),
        make("Concat", ["shape", "eight"], ["whole"], axis=0),
        make("Reshape", ["back", "whole"], ["context"]),
        make("MatMul", ["context", "wo"], ["projected"]),
        make("Add", ["projected", "x"], ["sum"]),
        make("LayerNormalization", ["sum", "g", "h"], ["middle"], axis=-1),
        make("MatMul", ["middle", "up"], ["wide"]),
        make("Add", ["b", "wide"], ["biased"]),
        make("Tanh", ["biased"], ["active"]),
        make("MatMul", ["active", "down"], ["narrow"]),
        make("Add", ["narrow", "middle"], ["hidden"]),
        make("Gather", ["hidden", "zero"], ["pooled"], axis=1)
        if pooling == "first"
        else make("ReduceMean", ["hidden", "one"], ["pooled"], keepdims=0),
        make("MatMul", ["pooled", "head"], ["logits"]),
    ]
    value = onnx.helper.make_tensor_value_info
    outputs = [value("logits", 1, ["batch", 1]), *([value(also, 1, None)] if also else [])]
    graph = onnx.helper.make_graph(
        nodes, "layer", [value("x", 1, ["batch", "token", WIDTH])], outputs,
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)


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
    from zoo_optimum.trim import narrow

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, narrow(copy)


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 7), (2, 64)])
def test_behind_the_attention_one_row_is_computed_and_scores_stay(rows: int, length: int) -> None:
    model = encoder("first")
    trimmed, count = narrowed(model)
    onnx.checker.check_model(trimmed, full_check=True)
    assert count == 6, "two products and the softmax of the attention, the projection, both of the feed-forward block"
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


@pytest.mark.parametrize("owner", ["the step before", "the user"])
def test_weights_in_a_file_of_their_own_are_moved_and_a_users_are_copied(tmp_path: Path, owner: str) -> None:
    from zoo_optimum.trim import trim

    target = tmp_path / "work" / "2-trim"
    source = (target.with_name("1-export") if owner == "the step before" else tmp_path / "own") / "model.onnx"
    target.mkdir(parents=True)
    source.parent.mkdir()
    onnx.save(encoder("first"), str(source), save_as_external_data=True, location="weights.bin", size_threshold=100)
    weights = source.with_name("weights.bin").read_bytes()
    job = Job(kind="trim", model=source, checkpoint=None, target=target, reference=target, task="x", options={})
    assert trim(job)["note"] == "6 nodes compute the first token only"
    assert {path.name for path in target.iterdir()} == {"model.onnx", "weights.bin"}
    assert (target / "weights.bin").read_bytes() == weights
    assert source.with_name("weights.bin").exists() == (owner == "the user")
    session = ort.InferenceSession(str(job.output), providers=["CPUExecutionProvider"])
    x = np.ones((1, 3, WIDTH), np.float32)
    expected = ort.InferenceSession(encoder("first").SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["xlm-roberta", "bert"])
def test_a_real_export_loses_its_last_layers_needless_rows(zoo: Zoo, tmp_path: Path, family: str) -> None:
    make_checkpoint(tmp_path / family, family)
    words = ("export", "bge-reranker-v2-m3", "--config-path", tmp_path / family, "--target", "cpu", "--json")
    result = zoo(*words)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [step["name"] for step in report["steps"]] == ["export", "trim"]
    assert report["steps"][1]["note"] == "6 nodes compute the first token only"
    assert report["steps"][1]["max_rel_error"] < 1e-5
    whole = json.loads(zoo(*words, "--optimize", "none").stdout)
    assert [step["name"] for step in whole["steps"]] == ["export"]
