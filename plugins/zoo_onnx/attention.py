"""Reading attention off a graph: what queries, keys and values are made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from zoo_onnx.graph_info import attribute, integers_of, shapes_of


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
    product: str
    """The name of ``tokens`` times ``weight``."""


class Reading:
    """A graph with what is known of it: shapes, weights, which node makes a tensor, and how many read it."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.shapes = shapes_of(model)
        self.weights = {tensor.name for tensor in model.graph.initializer} | set(dict(integers_of(model.graph)))
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.readers = Counter(name for node in model.graph.node for name in set(node.input))
        self.readers.update(output.name for output in model.graph.output)

    def single(self, name: str) -> bool:
        """Whether it is one number."""
        return self.shapes.get(name) in ([], [1])

    def projected(self, name: str, *, keys: bool) -> Projected | None:
        """What ``name``, the keys turned for a product or queries or values, is made of."""
        scales: list[str] = []
        node = self.step(name, "Mul", "Transpose")
        while node is not None and node.op_type == "Mul":
            single = [x for x in node.input if self.single(x)]
            if len(single) != 1:
                return None
            scales += single
            node = self.step(next(x for x in node.input if x != single[0]), "Mul", "Transpose")
        order = [0, 1, 2, 3]
        while node is not None and node.op_type == "Transpose":
            before = attribute(node, "perm", [3, 2, 1, 0])
            if len(before) != 4:
                return None
            order = [before[axis] for axis in order]
            node = self.step(node.input[0], "Transpose", "Reshape")
        if node is None or order != ([0, 2, 3, 1] if keys else [0, 2, 1, 3]):
            return None
        split = self.shapes.get(node.output[0], [])
        product, bias = self.step(node.input[0], "Add", "MatMul"), ""
        if product is not None and product.op_type == "Add":
            bias = next((x for x in product.input if len(self.shapes.get(x, [])) == 1), "")
            if not bias:
                return None
            product = self.step(next(x for x in product.input if x != bias), "MatMul")
        if product is None or product.op_type != "MatMul" or not self.constant(product.input[1]):
            return None
        tokens, weight = product.input
        sizes, (heads, size) = self.shapes.get(weight, []), split[2:] if len(split) == 4 else (None, None)
        if (
            len(self.shapes.get(tokens, [])) != 3
            or len(sizes) != 2
            or not heads
            or not size
            or sizes[1] != heads * size
        ):
            return None
        return Projected(tokens, weight, bias, sizes[0] or 0, heads, size, tuple(scales), product.output[0])

    def step(self, name: str, *kinds: str) -> Any:
        """The node that makes ``name`` for one reader alone, if it is of these kinds."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in kinds and self.readers[name] == 1 else None

    def only_reader(self, name: str, kind: str) -> Any:
        """The one node that reads ``name``, if it is of this kind."""
        readers = [node for node in self.graph.node if name in node.input]
        return readers[0] if len(readers) == self.readers[name] == 1 and readers[0].op_type == kind else None

    def constant(self, name: str) -> bool:
        """A weight, or one that is cast or turned when it is loaded."""
        while name not in self.weights:
            node = self.makers.get(name)
            if node is None or node.op_type not in ("Cast", "Transpose"):
                return False
            name = node.input[0]
        return True
