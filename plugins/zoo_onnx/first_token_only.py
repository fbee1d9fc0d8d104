"""The step ``first-token-only``: behind the last attention only the first token counts, so nothing else is computed there.

A cross-encoder's head reads ``<s>`` (or ``[CLS]``) alone, yet an exported graph sends every token through the last layer's projection
and feed-forward block. Starting at the node that picks the first token, the choice is moved towards the inputs as far as each
operator works row by row. The last attention then has one query q a head, and neither keys nor values are computed for it:
q (X Wk)^T is (q Wk^T) X^T, and p (X Wv) is (p X) Wv, a product with the tokens X themselves instead of two with a matrix of weights
(DeepSeek-V2, Liu et al. 2024, absorbs weights so). The scores stay what they were; of a model of L layers one L-th is no longer computed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from zoo.api import Job
from zoo_onnx.fold_kv import fold
from zoo_onnx.graph_files import load_nodes, save_nodes
from zoo_onnx.graph_info import attribute, integers_of, rewrite, shapes_of

_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Identity")
_ACTIVATIONS = ("Erf", "Tanh", "Relu", "Sigmoid", "Gelu", "FastGelu", "BiasGelu")
POINTWISE = frozenset((*_ARITHMETIC, *_ACTIVATIONS))
NORMALISING = frozenset(("LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization", "Softmax"))
"""Row by row when they work along the last axis."""
ALL_ROWS = "nothing trimmed: no node that picks the first token was found, or all before it needs every token"


def trim(job: Job) -> dict[str, Any]:
    """Write the trimmed graph beside the same weights."""
    assert job.model
    proto = load_nodes(job.model)
    count, folded = narrow(proto), fold(proto)
    save_nodes(proto, job)
    if not count:
        return {"note": ALL_ROWS}
    note = f"{count} nodes compute the first token only"
    return {"note": f"{note}, and no keys and values for it" if folded else note}


def narrow(model: Any) -> int:
    """Change ``model`` in place; the number of nodes that now compute one row instead of all."""
    return _Narrowing(model).run()


class _Narrowing:
    """Walks from the outputs to the inputs. ``wanted`` holds, for a tensor, the axis of which its readers need index 0 only."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._onnx = onnx
        self._graph = model.graph
        self._shapes = shapes_of(model)
        self._constants = {tensor.name for tensor in model.graph.initializer}
        self._values = dict(integers_of(model.graph))
        self._constants |= set(self._values)
        self._readers = Counter(name for node in model.graph.node for name in set(node.input))
        self._readers.update(output.name for output in model.graph.output)
        self._wanted: dict[str, int] = {}
        self._asking: defaultdict[str, list[tuple[Any, int]]] = defaultdict(list)
        self._picks: dict[str, Any] = {}
        self._shaped: list[tuple[Any, Any]] = []
        self._sizes: list[tuple[Any, list[int]]] = []

    def run(self) -> int:
        done = 0
        self._write_sizes()
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

    def _write_sizes(self) -> None:
        """A size that is read off a shape and known already is no reason to keep the rows of what has that shape."""
        makers = {node.output[0]: node for node in self._graph.node}
        for node in list(self._graph.node):
            shape = makers.get(node.input[0]) if node.op_type == "Slice" and len(node.input) == 3 else None
            if shape is None or shape.op_type != "Shape" or shape.attribute:
                continue
            bounds = [self._values.get(name) for name in node.input[1:]]
            sizes = self._shapes.get(shape.input[0], [])[slice(*bounds)] if None not in bounds else []
            known = [size for size in sizes if size is not None]
            if not known or len(known) < len(sizes):
                continue
            self._sizes.append((node, known))
            self._readers[shape.output[0]] -= 1
            if not self._readers[shape.output[0]]:
                self._readers[shape.input[0]] -= 1

    def _picks_first(self, node: Any) -> bool:
        """hidden[:, 0] of a tensor of batch, token and feature."""
        return (
            node.op_type == "Gather"
            and attribute(node, "axis", 0) == 1
            and self._values.get(node.input[1]) == 0
            and len(self._shapes.get(node.input[0], ())) == 3
        )

    def _demands(self, node: Any, axis: int) -> dict[int, int] | None:
        """Which axis of which input a node needs index 0 of to give index 0 of its output's ``axis``; None where it needs more."""
        rank = len(self._shapes.get(node.output[0], ()))
        if node.op_type in NORMALISING:
            last = attribute(node, "axis", -1) in (-1, rank - 1) and axis != rank - 1
            skips = (0, 1) if node.op_type == "SkipLayerNormalization" else (0,)
            return self._rowwise(node, skips, rank, axis) if last else None
        if node.op_type in POINTWISE:
            return self._rowwise(node, range(len(node.input)), rank, axis)
        if node.op_type == "MatMul" and axis == rank - 2 and len(self._shapes.get(node.input[0], ())) == rank:
            return {0: axis}
        if node.op_type == "Transpose" and rank:
            return {0: attribute(node, "perm", list(range(rank))[::-1])[axis]}
        if node.op_type == "Reshape" and axis == 1 and (self._merges_heads(node) or self._splits_heads(node)):
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
        if len(before) != 4 or len(after) != 3 or attribute(node, "allowzero", 0):
            return False
        size = after[2]
        if before[2] and before[3]:
            size = before[2] * before[3]
        if not size:
            return False
        self._shaped.append((node, [0, 1, size]))
        return True

    def _splits_heads(self, node: Any) -> bool:
        """The other way round."""
        before, after = self._shapes.get(node.input[0], []), self._shapes.get(node.output[0], [])
        if len(before) != 3 or len(after) != 4 or not after[2] or not after[3] or before[2] != after[2] * after[3]:
            return False
        self._shaped.append((node, [0, 1, after[2], after[3]]))
        return True

    def _ask(self, node: Any, demands: dict[int, int]) -> None:
        for index, axis in demands.items():
            name = node.input[index]
            if self._wanted.setdefault(name, axis) == axis:
                self._asking[name].append((node, index))

    def _insert(self) -> None:
        """A choice of the first row where the walk ended; the nodes behind it read that."""
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
            # A Slice would do as well, but what size it leaves is not inferred where the axis' own is unknown.
            self._picks[name] = helper.make_node(
                "Gather", [name, constant("first/index", [0])], [cut], name=cut, axis=axis
            )
            for node, index in readers:
                node.input[index] = cut
        for node, sizes in self._sizes:
            self._graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), node.output[0]))
            self._graph.node.remove(node)
        for node, shape in self._shaped:
            node.input[1] = constant(f"{node.output[0]}/shape", shape)
        nodes = []
        for node in self._graph.node:  # each choice right behind what it cuts: the order stays topological
            nodes.append(node)
            nodes += [self._picks.pop(name) for name in node.output if name in self._picks]
        nodes = [*self._picks.values(), *nodes]  # those of graph inputs
        rewrite(self._graph, nodes)
