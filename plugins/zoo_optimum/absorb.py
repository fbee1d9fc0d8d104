"""The second half of the step ``trim``: the last attention, which has one query a head, without keys and values of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from zoo_optimum.facts import attribute, integers_of, rewrite, shapes_of


@dataclass(frozen=True)
class Projected:
    """``tokens`` (batch, token, feature) times ``weight`` (feature, heads * size) plus ``bias``, split into heads."""

    tokens: str
    weight: str
    bias: str
    features: int
    heads: int
    size: int
    scales: tuple[str, ...]
    """Single numbers that it is multiplied by."""


def absorb(model: Any) -> bool:
    """Change ``model`` in place where an attention of one query is found; whether one was. Run after the choice of the first token."""
    return _Absorbing(model).run()


class _Absorbing:
    def __init__(self, model: Any) -> None:
        self._graph = model.graph
        self._shapes = shapes_of(model)
        self._weights = {tensor.name for tensor in model.graph.initializer} | set(dict(integers_of(model.graph)))
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers = Counter(name for node in model.graph.node for name in set(node.input))
        self._readers.update(output.name for output in model.graph.output)

    def run(self) -> bool:
        for softmax in self._graph.node:
            if softmax.op_type != "Softmax" or not self._one_query(softmax.output[0]):
                continue
            products = [n for n in self._graph.node if n.op_type == "MatMul" and n.input[0] == softmax.output[0]]
            scores = self._scores(softmax.input[0])
            if len(products) != 1 or scores is None or self._readers[softmax.output[0]] != 1:
                continue
            keys, values = (
                self._projected(scores.input[1], keys=True),
                self._projected(products[0].input[1], keys=False),
            )
            if keys and values and not values.scales:
                self._replace(scores, keys, products[0], values)
                return True
        return False

    def _one_query(self, name: str) -> bool:
        shape = self._shapes.get(name, [])
        return len(shape) == 4 and shape[2] == 1

    def _scores(self, name: str) -> Any:
        """The product of queries and keys behind what a softmax reads: masks may be added in between."""
        node = self._makers.get(name)
        while node is not None and node.op_type == "Add" and self._readers[node.output[0]] == 1:
            found = [self._makers[x] for x in node.input if x in self._makers and self._one_query(x)]
            node = next((x for x in found if x.op_type in ("MatMul", "Add") and self._heads(x) > 1), None)
        if node is None or node.op_type != "MatMul" or self._readers[node.output[0]] != 1:
            return None
        return node if self._one_query(node.input[0]) else None

    def _heads(self, node: Any) -> int:
        return self._shapes.get(node.output[0], [0, 0])[1] or 0

    def _projected(self, name: str, *, keys: bool) -> Projected | None:
        """What ``name``, the keys turned for a product or the values, is made of."""
        scales: list[str] = []
        node = self._step(name, "Mul", "Transpose")
        while node is not None and node.op_type == "Mul":
            single = [x for x in node.input if self._shapes.get(x) in ([], [1])]
            if len(single) != 1:
                return None
            scales += single
            node = self._step(next(x for x in node.input if x != single[0]), "Mul", "Transpose")
        order = [0, 1, 2, 3]
        while node is not None and node.op_type == "Transpose":
            before = attribute(node, "perm", [3, 2, 1, 0])
            if len(before) != 4:
                return None
            order = [before[axis] for axis in order]
            node = self._step(node.input[0], "Transpose", "Reshape")
        if node is None or order != ([0, 2, 3, 1] if keys else [0, 2, 1, 3]):
            return None
        split = self._shapes.get(node.output[0], [])
        product, bias = self._step(node.input[0], "Add", "MatMul"), ""
        if product is not None and product.op_type == "Add":
            bias = next((x for x in product.input if len(self._shapes.get(x, [])) == 1), "")
            if not bias:
                return None
            product = self._step(next(x for x in product.input if x != bias), "MatMul")
        if product is None or product.op_type != "MatMul" or not self._constant(product.input[1]):
            return None
        tokens, weight = product.input
        sizes, (heads, size) = self._shapes.get(weight, []), split[2:] if len(split) == 4 else (None, None)
        if (
            len(self._shapes.get(tokens, [])) != 3
            or len(sizes) != 2
            or not heads
            or not size
            or sizes[1] != heads * size
        ):
            return None
        return Projected(tokens, weight, bias, sizes[0] or 0, heads, size, tuple(scales))

    def _step(self, name: str, *kinds: str) -> Any:
        """The node that makes ``name`` for one reader alone, if it is of these kinds."""
        node = self._makers.get(name)
        return node if node is not None and node.op_type in kinds and self._readers[name] == 1 else None

    def _constant(self, name: str) -> bool:
        """A weight, or one that is cast when it is loaded."""
        node = self._makers.get(name)
        return name in self._weights or (node is not None and node.op_type == "Cast" and node.input[0] in self._weights)

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
        name = f"{scores.output[0]}/absorbed"
        asked = node(scores, "MatMul", [scores.input[0], by_head(scores, keys, [1, 2, 0], name)], f"{name}/query")
        for number, scale in enumerate(keys.scales):
            asked = node(scores, "Mul", [asked, scale], f"{name}/scaled{number}")
        flat = node(scores, "Reshape", [asked, sizes(f"{name}/flat", [0, keys.heads, keys.features])], f"{name}/rows")
        turned = node(scores, "Transpose", [keys.tokens], f"{name}/tokens", perm=[0, 2, 1])
        product = node(scores, "MatMul", [flat, turned], f"{name}/product")
        apart = sizes(f"{name}/apart", [0, keys.heads, 1, -1])
        node(scores, "Reshape", [product, apart], scores.output[0])

        # Probabilities sum to 1, so values' bias is added once.
        name = f"{mixed.output[0]}/absorbed"
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
