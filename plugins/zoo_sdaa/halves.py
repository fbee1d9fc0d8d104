"""Weights that a float32 graph keeps as float16 to be small: made float32 again, which loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def computed_in_half(graph: Any) -> list[str]:
    """Float16 weights that some node uses as they are; those that are cast to float32 first are only stored small."""
    from onnx import TensorProto

    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return sorted({name for node in graph.node if not _widens(node) for name in node.input if name in halves})


def widen(model: Any) -> Any:
    """Replace each stored half and the Cast behind it by the float32 weight. ``model`` is changed; its external data must be loaded."""
    from onnx import TensorProto, numpy_helper

    halves = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    casts = [node for node in model.graph.node if _widens(node) and node.input[0] in halves]
    if not casts:
        return model
    wide = []
    for node in casts:
        values = numpy_helper.to_array(halves[node.input[0]]).astype("float32")
        wide.append(numpy_helper.from_array(values, node.output[0]))
    _replace(model.graph.node, [node for node in model.graph.node if not any(node is cast for cast in casts)])
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in halves]
    _replace(model.graph.initializer, [*kept, *wide])
    return model


def _widens(node: Any) -> bool:
    from onnx import TensorProto

    return node.op_type == "Cast" and any(item.name == "to" and item.i == TensorProto.FLOAT for item in node.attribute)


def _replace(field: Any, items: Sequence[Any]) -> None:
    # Items of a repeated field are views of it: they are copied before it is emptied.
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
