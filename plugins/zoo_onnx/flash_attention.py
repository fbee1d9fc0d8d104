"""The step ``flash``: each attention becomes one of ONNX Runtime's own nodes, which never writes the whole matrix of scores down.

``MultiHeadAttention`` (com.microsoft) takes a mask of keys; without one it goes through keys and values block by block (FlashAttention,
Dao et al. 2022). A batch of one pair, or of pairs of one length, has nothing to mask: so there are two nodes for each attention, and
whether a batch is padded decides which of them runs. Projections stay the products they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.api import Job, onnxruntime_settings, open_onnxruntime
from zoo_onnx.attention import Projected, Reading
from zoo_onnx.graph_files import RUNTIME_OPERATORS, declare_operators, load_nodes, save_nodes
from zoo_onnx.graph_info import attribute, rewrite

MASK = "attention_mask"
NOTHING_FOUND = "no attention was joined: the graph has another form, or another mask than one of padding"
NOTHING = 4
"""ONNX Runtime's level at which it logs its own end alone."""
HIDDEN = -1e4
"""What masks add to hidden keys is this or less: BERT's first exporters wrote -10,000, today's the smallest float."""


def flash(job: Job) -> dict[str, Any]:
    """Write the graph with joined attentions beside the same weights."""
    assert job.model
    proto = load_nodes(job.model)
    count = join(proto)
    save_nodes(proto, job)
    return {"note": f"{count} attentions joined" if count else NOTHING_FOUND}


def join(model: Any) -> int:
    """Change ``model`` in place; the number of attentions that are one node now."""
    return _Joining(model).run()


@dataclass(frozen=True)
class Attention:
    """``softmax(scale * queries keys^T + mask) values`` as (batch, token, heads * size) under the name ``output``."""

    queries: Projected
    keys: Projected
    values: Projected
    scale: float
    output: str


class _Joining:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._reading = Reading(model)
        self._masks: dict[str, bool] = {}

    def run(self) -> int:
        graph = self._model.graph
        if all(given.name != MASK for given in graph.input):
            return 0
        found = [self._attention(node) for node in graph.node if node.op_type == "Softmax"]
        joined = {attention.output: self._nodes(attention) for attention in found if attention}
        if joined:
            nodes = [new for old in graph.node for new in joined.get(old.output[0], [old])]
            declare_operators(self._model)
            rewrite(graph, [*self._mask_nodes(), *nodes])
        return len(joined)

    def _attention(self, softmax: Any) -> Attention | None:
        reading = self._reading
        rank = len(reading.shapes.get(softmax.output[0], []))
        if rank != 4 or attribute(softmax, "axis", -1) not in (-1, 3):
            return None
        masked = reading.step(softmax.input[0], "Add")
        mask = next((x for x in masked.input if self._hides_padding(x)), "") if masked else ""
        if not mask:
            return None
        product, scales = self._scaled(next((x for x in masked.input if x != mask), ""))
        mixed = reading.only_reader(softmax.output[0], "MatMul")
        if product is None or mixed is None or mixed.input[0] != softmax.output[0]:
            return None
        turned = reading.only_reader(mixed.output[0], "Transpose")
        merged = reading.only_reader(turned.output[0], "Reshape") if turned else None
        if merged is None or attribute(turned, "perm", []) != [0, 2, 1, 3]:
            return None
        queries, values = (reading.projected(x, keys=False) for x in (product.input[0], mixed.input[1]))
        keys = reading.projected(product.input[1], keys=True)
        if not queries or not keys or not values or values.scales:
            return None
        forms = {(part.tokens, part.heads, part.size, bool(part.bias)) for part in (queries, keys, values)}
        if len(forms) > 1 or len(reading.shapes.get(merged.output[0], [])) != 3:
            return None
        scale = math.prod([*scales, *(self._number(name) for name in (*queries.scales, *keys.scales))])
        return Attention(queries, keys, values, scale, merged.output[0]) if math.isfinite(scale) else None

    def _scaled(self, name: str) -> tuple[Any, list[float]]:
        """The product behind ``name``, and the numbers it is multiplied by on the way."""
        scales = []
        node = self._reading.step(name, "MatMul", "Mul", "Div")
        while node is not None and node.op_type != "MatMul":
            scalar = next((x for x in node.input if self._reading.single(x)), "")
            if not scalar or (node.op_type == "Div" and scalar != node.input[1]):
                return None, []
            number = self._number(scalar)
            scales.append(number if node.op_type == "Mul" else 1 / number if number else math.nan)
            node = self._reading.step(next((x for x in node.input if x != scalar), ""), "MatMul", "Mul", "Div")
        return node, scales

    def _hides_padding(self, name: str) -> bool:
        """Whether it is 0 for keys that ``attention_mask`` shows and a large negative number for others, whatever the query: by trying."""
        if name not in self._masks:
            mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], np.int64)
            value = self._value(name, {given.name: mask for given in self._model.graph.input})
            try:
                added = np.broadcast_to(value, (3, 1, 5, 5)) if value is not None else None
            except ValueError:
                added = None
            shown = np.broadcast_to(mask[:, None, None, :], (3, 1, 5, 5)) == 1
            self._masks[name] = added is not None and bool(np.all(np.where(shown, added == 0, added <= HIDDEN)))
        return self._masks[name]

    def _number(self, name: str) -> float:
        value = self._value(name, {})
        return math.nan if value is None else float(value.item())

    def _value(self, name: str, feed: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
        """A tensor's value for these inputs, computed by the nodes that lead to it; None where a model's weights do."""
        from onnx import helper

        graph = self._model.graph
        read, nodes = {name}, []
        for node in reversed(graph.node):
            if read.intersection(node.output):
                read.update(node.input)
                nodes.append(node)
        weights = [tensor for tensor in graph.initializer if tensor.name in read]
        inputs = [given for given in graph.input if given.name in read]
        matrices = any(len(tensor.dims) > 1 for tensor in weights)
        if matrices or any(given.name not in feed for given in inputs):
            return None
        output = helper.make_empty_tensor_value_info(name)
        part = helper.make_model(helper.make_graph(nodes[::-1], "part", inputs, [output], weights))
        part.ir_version = self._model.ir_version
        del part.opset_import[:]
        part.opset_import.extend(self._model.opset_import)
        settings = onnxruntime_settings(1)
        settings.log_severity_level = NOTHING  # errors are expected here
        try:
            session = open_onnxruntime(part.SerializeToString(), settings)
            return np.asarray(session.run(None, {given.name: feed[given.name] for given in inputs})[0])
        except Exception:  # ONNX Runtime raises classes of its own; what cannot be computed is not what is looked for
            return None

    def _mask_nodes(self) -> list[Any]:
        from onnx import TensorProto, helper

        return [
            helper.make_node("Cast", [MASK], ["flash/keys"], name="flash/keys", to=TensorProto.INT32),
            helper.make_node("ReduceMin", ["flash/keys"], ["flash/least"], name="flash/least", keepdims=0),
            helper.make_node("Cast", ["flash/least"], ["flash/unpadded"], name="flash/unpadded", to=TensorProto.BOOL),
        ]

    def _nodes(self, attention: Attention) -> list[Any]:
        from onnx import TensorProto, helper

        name, parts = attention.output, (attention.queries, attention.keys, attention.values)
        before, bias = [], ""
        if attention.queries.bias:
            bias = f"{name}/bias"  # joined by the runtime when it loads the file: past 2 GB the numbers lie beside it
            before.append(helper.make_node("Concat", [part.bias for part in parts], [bias], name=bias, axis=0))

        def branch(label: str, mask: str) -> Any:
            made = f"{name}/{label}"
            inputs = [*(part.product for part in parts), bias, mask]
            while not inputs[-1]:
                inputs.pop()
            node = helper.make_node(
                "MultiHeadAttention",
                inputs,
                [made],
                name=made,
                domain=RUNTIME_OPERATORS,
                num_heads=attention.queries.heads,
                scale=attention.scale,
                mask_filter_value=float(np.finfo(np.float32).min),
            )
            width = attention.queries.heads * attention.queries.size
            output = helper.make_tensor_value_info(made, TensorProto.FLOAT, ["batch", "token", width])
            return helper.make_graph([node], label, [], [output])

        choice = {"then_branch": branch("unpadded", ""), "else_branch": branch("padded", "flash/keys")}
        return [*before, helper.make_node("If", ["flash/unpadded"], [name], name=name, **choice)]
