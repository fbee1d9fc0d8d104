"""What can be known of a graph without computing it: shapes, small constants, attributes, who reads what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Sizes = list[int | None]
"""A tensor's axes; None is one that differs from run to run."""


def shapes_of(model: Any) -> dict[str, Sizes]:
    """The shape of each tensor where it is known, weights included."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True).graph
    shapes: dict[str, Sizes] = {
        value.name: [axis.dim_value or None for axis in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    return shapes | {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


def rewrite(graph: Any, nodes: Iterable[Any]) -> None:
    """Give the graph these nodes, in order, but for those that no output depends on; weights nobody reads any more go with them."""
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(list(nodes)):
        if read.intersection(node.output):
            read.update(node.input)
            read.update(x for a in node.attribute if a.HasField("g") for inner in a.g.node for x in inner.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.value_info[:], graph.initializer[:]
    graph.node.extend(kept[::-1])
    graph.initializer.extend(weights)


def without_weights(model: Any) -> Any:
    """A copy for shape inference, which would serialise weights twice and look for files: large ones become inputs of the same shape."""
    from onnx import helper

    copy = type(model)(ir_version=model.ir_version, opset_import=model.opset_import)
    copy.graph.name = model.graph.name
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    for node in model.graph.node:
        tensor = _constant(node)
        if tensor is not None and tensor.external_data:
            copy.graph.input.append(helper.make_tensor_value_info(node.output[0], tensor.data_type, tensor.dims))
        else:
            copy.graph.node.append(node)
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2 and not tensor.external_data:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


def integers_of(graph: Any) -> Iterable[tuple[str, int | None]]:
    """Constants by name, with the value of those that are one integer."""
    from onnx import numpy_helper

    for node in graph.node:
        if node.op_type == "Constant":
            tensor = _constant(node)
            array = numpy_helper.to_array(tensor) if tensor is not None and not tensor.external_data else None
            yield (
                node.output[0],
                int(array.item()) if array is not None and array.size == 1 and array.dtype.kind == "i" else None,
            )
    for tensor in graph.initializer:
        if not tensor.external_data and tensor.data_type in (6, 7) and list(tensor.dims) in ([], [1]):
            yield tensor.name, int(numpy_helper.to_array(tensor).item())


def _constant(node: Any) -> Any:
    """The tensor of a Constant node; None of any other, and of one that holds no tensor."""
    tensors = [a.t for a in node.attribute if a.name == "value"] if node.op_type == "Constant" else []
    return tensors[0] if tensors else None


def attribute(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints) if attribute.type == attribute.INTS else attribute.i
    return default
