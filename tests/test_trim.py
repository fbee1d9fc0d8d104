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


def encoder(pooling: str, *, also: str = "", full: bool = False) -> Any:
    """One transformer layer over (batch, token, 8) embeddings ``x`` and its head; ``also`` names a tensor to give out beside the score.

    ``full`` is with what exports have besides: biases, scales, a mask, keys that are turned twice.
    """
    make = onnx.helper.make_node
    random = np.random.default_rng(5)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("wq", "wk", "wv", "wo"), (8, 8))
    shapes |= {"up": (8, 16), "b": (16,), "down": (16, 8), "g": (8,), "h": (8,), "head": (8, 1)}
    weights: dict[str, Any] = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"split": np.array([0, -1, HEADS, 4]), "zero": np.array(0), "one": np.array([1]), "eight": np.array([8])}
    weights |= {f"b{name}": random.standard_normal(8).astype(np.float32) for name in "qkv"}
    weights |= {"scale": np.array(0.4, np.float32), "three": np.array([3]), "end": np.array([2**63 - 1])}
    weights |= {"middle axes": np.array([1, 2])}
    turned = {"q": "/turned", "k": "/turned"} if full else {}
    turns = {"q": [0, 2, 1, 3], "k": [0, 2, 1, 3] if full else [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    heads = [
        node
        for name in "qkv"
        for node in (
            make("MatMul", ["x", f"w{name}"], [f"{name}0"]),
            *([make("Add", [f"b{name}", f"{name}0"], [f"{name}b"])] if full else []),
            make("Reshape", [f"{name}b" if full else f"{name}0", "split"], [f"{name}1"]),
            make("Transpose", [f"{name}1"], [name + turned.get(name, "")], perm=turns[name]),
        )
    ]
    if full:
        heads += [
            make("Shape", ["q/turned"], ["sizes"]),
            make("Slice", ["sizes", "three", "end"], ["size"]),
            make("Cast", ["size"], ["width"], to=1),
            make("Div", ["q/turned", "width"], ["q"]),
            make("Transpose", ["k/turned"], ["k/turned/again"], perm=[0, 1, 3, 2]),
            make("Mul", ["k/turned/again", "scale"], ["k"]),
            make("Gather", ["x", "zero"], ["mask"], axis=2),
            make("Unsqueeze", ["mask", "middle axes"], ["mask/wide"]),
        ]
    nodes = [
        *heads,
        make("MatMul", ["q", "k"], ["product" if full else "scores"]),
        *([make("Add", ["product", "mask/wide"], ["scores"])] if full else []),
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
    from zoo_optimum.absorb import absorb

    model = encoder("first", full=full)
    trimmed, count = narrowed(model)
    assert count == 7
    assert absorb(trimmed)
    onnx.checker.check_model(trimmed, full_check=True)
    made = {name for node in trimmed.graph.node for name in node.output}
    assert not made & {"k0", "v0", "k", "v"}
    inside = run(watched(trimmed, "q0", "mixed"), rows, length)
    np.testing.assert_allclose(inside["logits"], run(model, rows, length)["logits"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        inside["mixed"], run(watched(model, "mixed"), rows, length)["mixed"][:, :, :1], rtol=1e-4, atol=1e-5
    )
    assert inside["q0"].shape == (rows, 1, WIDTH)
    assert not absorb(trimmed), "once is all"


@pytest.mark.parametrize("also", ["k0", "v", "probabilities"])
def test_keys_and_values_that_are_read_elsewhere_too_are_computed(also: str) -> None:
    from zoo_optimum.absorb import absorb

    trimmed, _ = narrowed(encoder("first", also=also, full=True))
    before = trimmed.SerializeToString()
    assert not absorb(trimmed)
    assert trimmed.SerializeToString() == before


def test_keys_of_many_queries_are_computed() -> None:
    from zoo_optimum.absorb import absorb

    assert not absorb(encoder("mean", full=True))


@pytest.mark.parametrize("owner", ["the step before", "the user"])
@pytest.mark.parametrize("smallest", [100, 0], ids=["weights", "constants too, as past 2 GB"])
def test_weights_in_a_file_of_their_own_are_moved_and_a_users_are_copied(
    tmp_path: Path, owner: str, smallest: int
) -> None:
    from zoo_optimum.trim import trim

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
    job = Job(kind="trim", model=source, checkpoint=None, target=target, reference=target, task="x", options={})
    assert trim(job)["note"] == "7 nodes compute the first token only, and no keys and values for it"
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
    assert [step["name"] for step in report["steps"]] == ["export", "trim", "flash"]
    assert report["steps"][1]["note"] == "7 nodes compute the first token only, and no keys and values for it"
    assert report["steps"][1]["max_rel_error"] < 1e-5
    whole = json.loads(zoo(*words, "--optimize", "none").stdout)
    assert [step["name"] for step in whole["steps"]] == ["export"]
