"""Weights that a float32 graph stores as float16 to be small: found, and made float32 again, which loses nothing.

Both work on a loaded onnx ``ModelProto``, whose nodes are in topological order: each comes after those it reads from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

MOVES = frozenset({"Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operations that move numbers and compute none: what they give has the type of what they are given."""


def computed_in_float16(graph: Any) -> list[str]:
    """Names of the float16 values that an operation of ``graph`` computes with; empty if float16 weights are only stored.

    Weights that are cast to float32 before any operation computes with them are only stored small.
    """
    narrow = _narrow(graph)
    given = {output.name for output in graph.output}
    computed = narrow & given
    for node in graph.node:
        if node.op_type not in MOVES and not _to_float32(node):
            computed |= narrow.intersection(node.input)
    return sorted(computed)


def widen_float16(model: Any) -> Any:
    """``model`` with stored float16 weights made float32, without the casts that follow them.

    ``model`` is changed; the data of its weights must be loaded, and ``computed_in_float16`` must find nothing in it.
    """
    graph = model.graph
    narrow = _narrow(graph)
    if not narrow:
        return model
    wide = [_wide(tensor) if _is_float16(tensor) else tensor for tensor in graph.initializer]
    kept, renamed = [], {}
    needed = {output.name for output in graph.output} | set(_names_inside(graph))
    for node in graph.node:
        constant = _constant(node)
        if constant is not None and _is_float16(constant):
            constant.CopyFrom(_wide(constant))
        if _to_float32(node) and node.input[0] in narrow and node.output[0] not in needed:
            renamed[node.output[0]] = node.input[0]
        else:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            kept.append(node)
    _replace(graph.initializer, wide)
    _replace(graph.node, kept)
    del graph.value_info[:]  # it may still say float16
    return model


def _narrow(graph: Any) -> set[str]:
    """Values that are float16 weights, or weights that were moved about."""
    narrow = {tensor.name for tensor in graph.initializer if _is_float16(tensor)}
    for node in graph.node:
        constant = _constant(node)
        if (constant is not None and _is_float16(constant)) or (
            node.op_type in MOVES and node.input and node.input[0] in narrow
        ):
            narrow.update(node.output)
    return narrow


def _is_float16(tensor: Any) -> bool:
    from onnx import TensorProto

    return bool(tensor.data_type == TensorProto.FLOAT16)


def _to_float32(node: Any) -> bool:
    from onnx import TensorProto

    return node.op_type == "Cast" and any(item.name == "to" and item.i == TensorProto.FLOAT for item in node.attribute)


def _constant(node: Any) -> Any:
    tensors = [item.t for item in node.attribute if item.name == "value"] if node.op_type == "Constant" else []
    return tensors[0] if tensors else None


def _wide(tensor: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name)


def _names_inside(graph: Any) -> Iterator[str]:
    """What the graphs inside nodes (If, Loop) read: names of values outside them among others."""
    for node in graph.node:
        for item in node.attribute:
            for inner in (item.g, *item.graphs):
                yield from (name for each in inner.node for name in each.input)
                yield from (output.name for output in inner.output)
                yield from _names_inside(inner)


def _replace(field: Any, items: Sequence[Any]) -> None:
    # Items of a repeated field are views of it: they are copied before it is emptied.
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
