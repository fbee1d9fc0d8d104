"""The second half of the step ``first-token-only``: the last attention, which has one query a head, computes no keys and values."""

from __future__ import annotations

from typing import Any

from zoo_onnx.attention import Projected, Reading
from zoo_onnx.graph_info import rewrite


def fold(model: Any) -> bool:
    """Change ``model`` in place where an attention of one query is found; whether one was. Run after the choice of the first token."""
    return _Folding(model).run()


class _Folding:
    def __init__(self, model: Any) -> None:
        self._reading = Reading(model)
        self._graph = self._reading.graph

    def run(self) -> bool:
        for softmax in self._graph.node:
            if softmax.op_type != "Softmax" or not self._one_query(softmax.output[0]):
                continue
            mixed = self._reading.only_reader(softmax.output[0], "MatMul")
            scores = self._scores(softmax.input[0])
            if mixed is None or mixed.input[0] != softmax.output[0] or scores is None:
                continue
            keys = self._reading.projected(scores.input[1], keys=True)
            values = self._reading.projected(mixed.input[1], keys=False)
            if keys and values and not values.scales:
                self._replace(scores, keys, mixed, values)
                return True
        return False

    def _one_query(self, name: str) -> bool:
        shape = self._reading.shapes.get(name, [])
        return len(shape) == 4 and shape[2] == 1

    def _scores(self, name: str) -> Any:
        """The product of queries and keys behind what a softmax reads: masks may be added in between."""
        node = self._reading.makers.get(name)
        while node is not None and node.op_type == "Add" and self._reading.readers[node.output[0]] == 1:
            found = [self._reading.makers[x] for x in node.input if x in self._reading.makers and self._one_query(x)]
            node = next((x for x in found if x.op_type in ("MatMul", "Add") and self._heads(x) > 1), None)
        if node is None or node.op_type != "MatMul" or self._reading.readers[node.output[0]] != 1:
            return None
        return node if self._one_query(node.input[0]) else None

    def _heads(self, node: Any) -> int:
        return self._reading.shapes.get(node.output[0], [0, 0])[1] or 0

    def _replace(self, scores: Any, keys: Projected, mixed: Any, values: Projected) -> None:
        import numpy as np
        from onnx import helper, numpy_helper

        def sizes(name: str, numbers: list[int]) -> str:
            self._graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
            return name

        made: dict[str, list[Any]] = {scores.output[0]: [], mixed.output[0]: []}

        def node(at: Any, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
            made[at.output[0]].append(helper.make_node(kind, inputs, [output], name=output, **attributes))
            return output

        def by_head(at: Any, of: Projected, perm: list[int], name: str) -> str:
            """The weight as one matrix a head; runtimes fold this when they load the file."""
            split = sizes(f"{name}/split", [of.features, of.heads, of.size])
            return node(
                at, "Transpose", [node(at, "Reshape", [of.weight, split], f"{name}/heads")], f"{name}/turned", perm=perm
            )

        # Keys' bias adds the same to every score of a query, which the softmax does not see.
        name = f"{scores.output[0]}/absorbed"  # the name that shipped files have
        asked = node(scores, "MatMul", [scores.input[0], by_head(scores, keys, [1, 2, 0], name)], f"{name}/query")
        for number, scale in enumerate(keys.scales):
            asked = node(scores, "Mul", [asked, scale], f"{name}/scaled{number}")
        flat = node(scores, "Reshape", [asked, sizes(f"{name}/flat", [0, keys.heads, keys.features])], f"{name}/rows")
        turned = node(scores, "Transpose", [keys.tokens], f"{name}/tokens", perm=[0, 2, 1])
        product = node(scores, "MatMul", [flat, turned], f"{name}/product")
        apart = sizes(f"{name}/apart", [0, keys.heads, 1, -1])
        node(scores, "Reshape", [product, apart], scores.output[0])

        # Probabilities sum to 1, so values' bias is added once.
        name = f"{mixed.output[0]}/absorbed"  # the name that shipped files have
        flat = node(mixed, "Reshape", [mixed.input[0], sizes(f"{name}/flat", [0, values.heads, -1])], f"{name}/rows")
        product = node(mixed, "MatMul", [flat, values.tokens], f"{name}/product")
        apart = sizes(f"{name}/apart", [0, values.heads, 1, values.features])
        mean = node(mixed, "Reshape", [product, apart], f"{name}/mean")
        inputs = [mean, by_head(mixed, values, [1, 0, 2], name)]
        if values.bias:
            product = node(mixed, "MatMul", inputs, f"{name}/values")
            split = sizes(f"{name}/bias/split", [values.heads, 1, values.size])
            node(mixed, "Add", [product, node(mixed, "Reshape", [values.bias, split], f"{name}/bias")], mixed.output[0])
        else:
            node(mixed, "MatMul", inputs, mixed.output[0])

        nodes = [new for old in self._graph.node for new in made.get(old.output[0], [old])]
        rewrite(self._graph, nodes)
