"""Weights that a float32 graph stores as float16 to be small: made float32 again, which loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOVES = frozenset({"Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operations that move numbers and compute none: what they give has the type of what they are given."""


def computed_in_float16(graph: Any) -> list[str]:
    """Float16 values that an operation computes with. Those that are cast to float32 before any does are only stored small.

    The nodes of ``graph`` are sorted: each comes after those it reads from.
    """
    narrow = {tensor.name for tensor in _stored(graph)}
    computed = set()
    for node in graph.node:
        used = narrow.intersection(node.input)
        if used and node.op_type in MOVES:
            narrow.update(node.output)
        elif not _widens(node):
            computed |= used
    return sorted(computed)


def widen(model: Any) -> Any:
    """Make stored float16 weights float32. The casts behind them stay and change nothing. ``model`` is changed; its data must be loaded."""
    from onnx import numpy_helper

    narrow = _stored(model.graph)
    if narrow:
        names = {tensor.name for tensor in narrow}
        wide = [
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name) for tensor in narrow
        ]
        _replace(model.graph.initializer, [t for t in model.graph.initializer if t.name not in names] + wide)
        del model.graph.value_info[:]  # it may still say float16
    return model


def _stored(graph: Any) -> list[Any]:
    from onnx import TensorProto

    return [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16]


def _widens(node: Any) -> bool:
    from onnx import TensorProto

    return node.op_type == "Cast" and any(item.name == "to" and item.i == TensorProto.FLOAT for item in node.attribute)


def _replace(field: Any, items: Sequence[Any]) -> None:
    # Items of a repeated field are views of it: they are copied before it is emptied.
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
