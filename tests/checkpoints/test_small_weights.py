"""Weights that are only stored in fewer bits are made float32, and told from what a graph computes in, by one rule for every plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.api import Job, computed_in_float16, open_onnxruntime, widen_weights
from zoo.onnx_runtime import onnxruntime_settings

onnx = pytest.importorskip("onnx")
FLOAT, INT32, HALF = 1, 6, 10


def graph_with(nodes: list[Any], **weights: np.ndarray) -> Any:
    """A model from ``x`` (float32, 2 by 3) to ``y``."""
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        nodes,
        "test",
        [info("x", FLOAT, [2, 3])],
        [info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, inputs.split(), [output], **attributes)


WEIGHT = np.arange(6, dtype=np.float16).reshape(2, 3) / 7
TURNED_THEN_CAST = [
    node("Transpose", "w", "turned", perm=[1, 0]),
    node("Cast", "turned", "wide", to=FLOAT),
    node("MatMul", "x wide", "y"),
]
AS_CONSTANT = [
    node("Constant", "", "w", value=onnx.numpy_helper.from_array(WEIGHT.T.copy())),
    node("Cast", "w", "wide", to=FLOAT),
    node("MatMul", "x wide", "y"),
]
COMPUTES = [
    node("Cast", "x", "narrow", to=HALF),
    node("MatMul", "narrow w", "product"),
    node("Cast", "product", "y", to=FLOAT),
]


def result(model: Any) -> np.ndarray:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    found: np.ndarray = open_onnxruntime(model.SerializeToString(), onnxruntime_settings(1)).run(["y"], {"x": x})[0]
    return found


def stored_types(model: Any) -> set[int]:
    constants = [item.t for each in model.graph.node if each.op_type == "Constant" for item in each.attribute]
    return {tensor.data_type for tensor in (*model.graph.initializer, *constants)}


@pytest.mark.parametrize("stored", [graph_with(TURNED_THEN_CAST, w=WEIGHT), graph_with(AS_CONSTANT)])
def test_stored_weights_become_float32_and_the_result_stays(stored: Any) -> None:
    before = result(stored)
    assert computed_in_float16(stored.graph) == []
    wide = widen_weights(stored)
    assert stored_types(wide) == {FLOAT}
    assert "Cast" not in {each.op_type for each in wide.graph.node}
    assert result(wide).tolist() == before.tolist()


def test_a_graph_that_computes_in_it_is_told_by_the_weight() -> None:
    assert computed_in_float16(graph_with(COMPUTES, w=WEIGHT.T.copy()).graph) == ["w"]


def test_a_weight_that_is_the_result_is_no_float32_weight() -> None:
    model = graph_with([node("Identity", "w", "y")], w=WEIGHT)
    assert computed_in_float16(model.graph) == ["y"]


def test_what_a_graph_inside_a_node_reads_is_still_there() -> None:
    info = onnx.helper.make_tensor_value_info
    inner = onnx.helper.make_graph([node("MatMul", "x wide", "z")], "inner", [], [info("z", FLOAT, None)])
    nodes = [
        node("Transpose", "w", "turned", perm=[1, 0]),
        node("Cast", "turned", "wide", to=FLOAT),
        node("If", "yes", "y", then_branch=inner, else_branch=inner),
    ]
    model = graph_with(nodes, w=WEIGHT, yes=np.array(True))
    before = result(model)
    assert result(widen_weights(model)).tolist() == before.tolist()


CODES = np.random.default_rng(0).integers(0, 256, (3, 2)).astype(np.uint8)
TABLE = np.linspace(-3, 3, 256, dtype=np.float32)
LOOKED_UP = [
    node("Cast", "w", "code", to=INT32),
    node("Gather", "table code", "wide"),
    node("MatMul", "x wide", "y"),
]


def test_bytes_that_are_looked_up_become_what_they_stand_for() -> None:
    model = graph_with(LOOKED_UP, w=CODES, table=TABLE)
    before = result(model)
    wide = widen_weights(model)
    assert [each.op_type for each in wide.graph.node] == ["MatMul"]
    assert [tensor.name for tensor in wide.graph.initializer] == ["w"]
    assert result(wide).tolist() == before.tolist()


@pytest.mark.parametrize(
    "more",
    [
        [node("Cast", "w", "itself", to=FLOAT), node("MatMul", "x itself", "z"), node("Add", "p z", "y")],
        [node("Gather", "other code", "z"), node("MatMul", "x z", "q"), node("Add", "p q", "y")],
    ],
)
def test_bytes_that_are_read_in_another_way_too_stay_bytes(more: list[Any]) -> None:
    nodes = [*LOOKED_UP[:2], node("MatMul", "x wide", "p"), *more]
    model = graph_with(nodes, w=CODES, table=TABLE, other=TABLE[::-1].copy())
    before = result(model)
    wide = widen_weights(model)
    assert {tensor.data_type for tensor in wide.graph.initializer if tensor.name == "w"} == {onnx.TensorProto.UINT8}
    assert result(wide).tolist() == before.tolist()


def test_looked_up_bytes_that_a_graph_inside_a_node_reads_are_still_there() -> None:
    info = onnx.helper.make_tensor_value_info
    inner = onnx.helper.make_graph([node("MatMul", "x wide", "z")], "inner", [], [info("z", FLOAT, None)])
    nodes = [*LOOKED_UP[:2], node("If", "yes", "y", then_branch=inner, else_branch=inner)]
    model = graph_with(nodes, w=CODES, table=TABLE, yes=np.array(True))
    before = result(model)
    assert result(widen_weights(model)).tolist() == before.tolist()


def test_half_makes_float16_of_a_file_that_only_stores_its_weights_so(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime.transformers")
    from zoo_onnx.graph_steps import half

    onnx.save(graph_with(TURNED_THEN_CAST, w=WEIGHT), tmp_path / "model.onnx")
    job = Job(name="half", model=tmp_path / "model.onnx", target=tmp_path / "half", reference=tmp_path / "none")
    job.target.mkdir()
    assert half(job) == {}
    assert computed_in_float16(onnx.load(job.output).graph)
