"""The step ``trim``: behind the last attention only the first token counts, so nothing else is computed there.

A cross-encoder's head reads ``<s>`` (or ``[CLS]``) alone, yet an exported graph sends every token through the last layer's projection
and feed-forward block. Starting at the node that picks the first token, the choice is moved towards the inputs as far as each
operator works row by row. The numbers stay what they were; of a model of L layers nearly one L-th is no longer computed.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from zoo.checkpoint import model_files
from zoo_optimum.process import Job

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Identity")
_ACTIVATIONS = ("Erf", "Tanh", "Relu", "Sigmoid", "Gelu", "FastGelu", "BiasGelu")
POINTWISE = frozenset((*_ARITHMETIC, *_ACTIVATIONS))
NORMALISING = frozenset(("LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "Softmax"))
"""Row by row when they work along the last axis."""
ALL_ROWS = "nothing trimmed: no node that picks the first token was found, or all before it needs every token"


def trim(job: Job) -> dict[str, Any]:
    """Write the trimmed graph beside the same weights, which are moved here from the step before; a user's own are copied."""
    import onnx

    assert job.model
    proto = onnx.load(job.model, load_external_data=False)
    count = narrow(proto)
    for path in model_files(job.model):
        if path != job.model:
            ours = path.resolve().is_relative_to(job.target.resolve().parent)
            (shutil.move if ours else shutil.copyfile)(path, job.target / path.name)
    onnx.save(proto, str(job.output))  # which leaves weights kept apart where they are
    return {"note": f"{count} nodes compute the first token only" if count else ALL_ROWS}


def narrow(model: Any) -> int:
    """Change ``model`` in place; the number of nodes that now compute one row instead of all."""
    return _Narrowing(model).run()


class _Narrowing:
    """Walks from the outputs to the inputs. ``wanted`` holds, for a tensor, the axis of which its readers need index 0 only."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._onnx = onnx
        self._graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
        self._shapes = {
            value.name: [axis.dim_value or None for axis in value.type.tensor_type.shape.dim]
            for value in (*inferred.value_info, *inferred.input, *inferred.output)
            if value.type.tensor_type.HasField("shape")
        }
        self._shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
        self._constants = {tensor.name for tensor in model.graph.initializer}
        self._values = dict(_small_constants(model.graph))
        self._constants |= set(self._values)
        self._readers = Counter(name for node in model.graph.node for name in set(node.input))
        self._readers.update(output.name for output in model.graph.output)
        self._wanted: dict[str, int] = {}
        self._asking: defaultdict[str, list[tuple[Any, int]]] = defaultdict(list)
        self._slices: dict[str, Any] = {}
        self._shaped: list[tuple[Any, Any]] = []

    def run(self) -> int:
        done = 0
        for node in reversed(self._graph.node):
            if self._picks_first(node):
                self._ask(node, {0: 1})
                continue
            name = node.output[0] if len([x for x in node.output if x]) == 1 else ""
            if not name or name not in self._asking or len(self._asking[name]) < self._readers[name]:
                continue  # someone reads every row
            demands = self._demands(node, self._wanted[name])
            if demands is not None:
                del self._asking[name]
                self._ask(node, demands)
                done += node.op_type in ("MatMul", "Gemm", "Softmax")
        if done:
            self._insert()
        return done

    def _picks_first(self, node: Any) -> bool:
        """hidden[:, 0] of a tensor of batch, token and feature."""
        return (
            node.op_type == "Gather"
            and _attribute(node, "axis", 0) == 1
            and self._values.get(node.input[1]) == 0
            and len(self._shapes.get(node.input[0], ())) == 3
        )

    def _demands(self, node: Any, axis: int) -> dict[int, int] | None:
        """Which axis of which input a node needs index 0 of to give index 0 of its output's ``axis``; None where it needs more."""
        rank = len(self._shapes.get(node.output[0], ()))
        if node.op_type in NORMALISING:
            last = _attribute(node, "axis", -1) in (-1, rank - 1) and axis != rank - 1
            skips = (0, 1) if node.op_type == "SkipLayerNormalization" else (0,)
            return self._rowwise(node, skips, rank, axis) if last else None
        if node.op_type in POINTWISE:
            return self._rowwise(node, range(len(node.input)), rank, axis)
        if node.op_type == "MatMul" and axis == rank - 2 and len(self._shapes.get(node.input[0], ())) == rank:
            return {0: axis}
        if node.op_type == "Transpose" and rank:
            return {0: _attribute(node, "perm", list(range(rank))[::-1])[axis]}
        if node.op_type == "Reshape" and axis == 1 and rank == 3 and self._merges_heads(node):
            return {0: 1}
        return None

    def _rowwise(self, node: Any, inputs: Iterable[int], rank: int, axis: int) -> dict[int, int] | None:
        demands = {}
        for index in inputs:
            name = node.input[index]
            shape = self._shapes.get(name)
            if shape is None or not rank:
                return None
            own = axis - (rank - len(shape))  # shapes are aligned at their ends
            if own < 0 or shape[own] == 1:
                continue
            if name in self._constants:
                return None
            demands[index] = own
        return demands

    def _merges_heads(self, node: Any) -> bool:
        """(batch, token, heads, size) to (batch, token, heads * size): the new shape is written down, since the token axis is 1 now."""
        before, after = self._shapes.get(node.input[0], []), self._shapes.get(node.output[0], [])
        if len(before) != 4 or len(after) != 3 or _attribute(node, "allowzero", 0):
            return False
        size = after[2]
        if before[2] and before[3]:
            size = before[2] * before[3]
        if not size:
            return False
        self._shaped.append((node, [0, 1, size]))
        return True

    def _ask(self, node: Any, demands: dict[int, int]) -> None:
        for index, axis in demands.items():
            name = node.input[index]
            if self._wanted.setdefault(name, axis) == axis:
                self._asking[name].append((node, index))

    def _insert(self) -> None:
        """A Slice where the walk ended; the nodes behind it read that."""
        helper, numpy_helper = self._onnx.helper, self._onnx.numpy_helper
        import numpy as np

        def constant(name: str, values: list[int]) -> str:
            if name not in self._constants:
                self._constants.add(name)
                self._graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
            return name

        for name, readers in self._asking.items():
            axis = self._wanted[name]
            cut = f"{name}/first"
            bounds = [constant("first/start", [0]), constant("first/end", [1]), constant(f"first/axis{axis}", [axis])]
            self._slices[name] = helper.make_node("Slice", [name, *bounds], [cut], name=cut)
            for node, index in readers:
                node.input[index] = cut
        for node, shape in self._shaped:
            node.input[1] = constant(f"{node.output[0]}/shape", shape)
        nodes = []
        for node in self._graph.node:  # each slice right behind what it cuts: the order stays topological
            nodes.append(node)
            nodes += [self._slices.pop(name) for name in node.output if name in self._slices]
        nodes = [*self._slices.values(), *nodes]  # those of graph inputs
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(nodes)


def _without_weights(model: Any) -> Any:
    """A copy for shape inference, which would serialise every weight twice: large ones become inputs of the same shape."""
    from onnx import helper

    copy = type(model)(ir_version=model.ir_version, opset_import=model.opset_import)
    copy.graph.name = model.graph.name
    copy.graph.node.extend(model.graph.node)
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2 and not tensor.external_data:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


def _small_constants(graph: Any) -> Iterable[tuple[str, int | None]]:
    """Constants by name, with the value of those that are one integer."""
    from onnx import numpy_helper

    for node in graph.node:
        if node.op_type == "Constant":
            tensors = [a.t for a in node.attribute if a.name == "value"]
            array = numpy_helper.to_array(tensors[0]) if tensors else None
            yield (
                node.output[0],
                int(array.item()) if array is not None and array.size == 1 and array.dtype.kind == "i" else None,
            )
    for tensor in graph.initializer:
        if not tensor.external_data and tensor.data_type in (6, 7) and list(tensor.dims) in ([], [1]):
            yield tensor.name, int(numpy_helper.to_array(tensor).item())


def _attribute(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints) if attribute.type == attribute.INTS else attribute.i
    return default
