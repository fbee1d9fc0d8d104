"""Weights that a float32 graph stores in fewer bits to be small: found, and made float32 again, which loses nothing.

They are float16 with a Cast behind it, or bytes that are looked up in a table of 256 numbers, as 8-bit floats are. Both functions work on
a loaded onnx ``ModelProto``, whose nodes are in topological order: each comes after those it reads from.
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


def widen_weights(model: Any) -> Any:
    """``model`` with weights that are stored in fewer bits made float32: float16 without the casts behind it, and bytes that are looked up.

    ``model`` is changed; the data of its weights must be loaded, and ``computed_in_float16`` must find nothing in it.
    """
    graph = model.graph
    _look_up(graph)
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


def _look_up(graph: Any) -> None:
    """Make weights of bytes, each looked up in one table after rows were picked or not, what they stand for; ``graph`` is changed."""
    from onnx import TensorProto, helper, numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    weight_of = {
        name: name for name, tensor in stored.items() if tensor.data_type == TensorProto.UINT8
    }  # bytes, moved or not
    codes: dict[str, str] = {}  # bytes as the indices that they are, and the bytes
    result: dict[str, str] = {}  # what was looked up, and the bytes
    table_of: dict[str, str] = {}
    spoiled = {weight_of[output.name] for output in graph.output if output.name in weight_of}
    for node in graph.node:
        if _casts(node, TensorProto.INT32) and node.input[0] in weight_of:
            codes[node.output[0]] = node.input[0]
        elif node.op_type == "Gather" and node.input[1] in codes and node.input[0] in stored:
            result[node.output[0]] = codes[node.input[1]]
            weight = weight_of[codes[node.input[1]]]
            if table_of.setdefault(weight, node.input[0]) != node.input[0]:
                spoiled.add(weight)
        elif node.op_type in MOVES and node.input[0] in weight_of and not {*node.input[1:]} & {*weight_of, *codes}:
            weight_of[node.output[0]] = weight_of[node.input[0]]
        else:
            spoiled |= {weight_of[codes.get(name, name)] for name in node.input if codes.get(name, name) in weight_of}
    inside = {*_names_inside(graph), *(output.name for output in graph.output)}
    spoiled |= {weight_of[codes.get(name, name)] for name in inside if codes.get(name, name) in weight_of}
    tables = {weight: table for weight, table in table_of.items() if weight not in spoiled}
    if not tables:
        return
    for weight, table in tables.items():
        values = numpy_helper.to_array(stored[table])[numpy_helper.to_array(stored[weight])]
        stored[weight].CopyFrom(numpy_helper.from_array(values, weight))
    kept = []
    for node in graph.node:
        name = node.output[0]
        source = codes.get(name) or result.get(name)
        if source is None or weight_of[source] not in tables:
            kept.append(node)
        elif name in inside:  # it must keep its name
            kept.append(helper.make_node("Identity", [source], [name], name=node.name))
    for node in kept:
        node.input[:] = [result[x] if x in result and weight_of[result[x]] in tables else x for x in node.input]
    read = {name for node in kept for name in node.input} | inside
    unread = {table for table in tables.values() if table not in read}
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in unread])
    _replace(graph.node, kept)
    del graph.value_info[:]  # it may still say that they are bytes


def _casts(node: Any, to: int) -> bool:
    return node.op_type == "Cast" and any(item.name == "to" and item.i == to for item in node.attribute)


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

    return _casts(node, TensorProto.FLOAT)


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
