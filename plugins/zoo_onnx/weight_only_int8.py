"""The step ``weight-only-int8``: matrices and tables in int8, with a scale for each channel; what is computed with them stays in float.

Each weight is stored as int8 and comes back through DequantizeLinear. These are standard operators, so every runtime computes the
file, and OpenVINO's CPU plugin takes the int8 weights into its matrix products. It is the rounding of nncf's INT8_SYM, without nncf:
that would bring 240 MB (scipy, scikit-learn), and by default reports its use over the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.api import Job, ZooError, load_onnx_weights, map_onnx_tensor
from zoo_onnx.graph_files import copied, widened, write

LARGEST = 127
"""Symmetric: -128 is not used, so that zero stays zero and no offset is needed."""
ROWS = 4096
"""Rows rounded at once: the float copy of a part is held, never that of a table of a gigabyte."""
LARGEST_INSIDE = 100_000_000
"""Bytes of weights up to which one file is made. Those beside the graph are mapped when it is opened: at full size that takes 0.5 GB less
memory than reading one file, and half the time."""
FIRST_OPSET = 13
"""DequantizeLinear has a scale a channel from here on."""


def compress(job: Job) -> dict[str, Any]:
    """Replace every float32 matrix that a product or a look-up reads. Each is read from disk, rounded and let go before the next."""
    import onnx

    assert job.model
    source = widened(job.model, job.target)
    model = onnx.load(source, load_external_data=False)
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return copied(job, "it was in int8 already")
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < FIRST_OPSET:
        raise ZooError(f"{job.model.name} is written for ONNX opset {opset}; int8 weights need {FIRST_OPSET} or later")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    restored = []
    for name, axis in _channels(model.graph):
        rounded, scale = rounded_to_int8(_values(weights[name], source.parent), axis)
        weights[name].CopyFrom(onnx.numpy_helper.from_array(rounded, f"{name}_int8"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_scale"))
        restored.append(
            onnx.helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], name, axis=axis)
        )
    if not restored:
        return copied(job, "no float32 matrix was found: nothing is in int8")
    nodes = [*restored, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    load_onnx_weights(model, source.parent)
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    write(model, job.output, external=size > LARGEST_INSIDE or bool(job.options.get("external_data")))
    return {"note": f"{len(restored)} matrices and tables in int8"}


def rounded_to_int8(values: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 of the matrix's own shape, and the scale of each channel along ``axis``: their product is within half a scale of ``values``."""
    largest = np.maximum(values.max(axis=1 - axis), -values.min(axis=1 - axis))
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    rounded = np.empty(values.shape, np.int8)
    for start in range(0, len(values), ROWS):
        part = slice(start, start + ROWS)
        rounded[part] = np.rint(values[part] / (scale[part, None] if axis == 0 else scale))
    return rounded, scale


def _channels(graph: Any) -> Iterator[tuple[str, int]]:
    """Names of the matrices, each with the axis of its output channels. Vectors, and what two readers read differently, are left alone.

    A matrix with a single channel is left alone too: it is the head, whose output is the score.
    """
    import onnx

    matrices = {
        tensor.name: min(tensor.dims) > 1
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2
    }
    turned: dict[str, str] = {}
    axes: dict[str, set[int | None]] = {}
    for node in graph.node:  # in topological order, as the format demands
        for place, name in enumerate(node.input):
            if node.op_type == "Transpose" and name in matrices:
                turned[node.output[0]] = name
            elif name in turned:
                axis = _axis(node, place)
                axes.setdefault(turned[name], set()).add(None if axis is None else 1 - axis)
            elif name in matrices:
                axes.setdefault(name, set()).add(_axis(node, place))
    for name, read in axes.items():
        axis = next(iter(read))
        if len(read) == 1 and axis is not None and matrices[name]:
            yield name, axis


def _axis(node: Any, place: int) -> int | None:
    """The axis of output channels of the matrix that ``node`` reads at ``place``; None where it reads no matrix there."""
    given = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Gather" and place == 0 and given.get("axis", 0) == 0:
        return 0
    if node.op_type == "MatMul" and place == 1:
        return 1
    if node.op_type == "Gemm" and place == 1:
        return 0 if given.get("transB") else 1
    return None


def _values(tensor: Any, folder: Path) -> NDArray[Any]:
    """The tensor's numbers; those beside the graph are not read yet."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return map_onnx_tensor(tensor, folder)
    values: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    return values
