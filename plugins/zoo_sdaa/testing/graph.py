"""An ONNX graph that is really computed, in float32 or rounded to float16 after every operation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.api import onnxruntime_settings, open_onnxruntime
from zoo_sdaa.testing.machine import demand

MAGIC = b"FAKETECO"
LARGEST = 65504.0
"""The largest float16. Constants beyond it (an attention mask of -3.4e38) are cut to it, or 0 * infinity would give NaN."""

MOVES = frozenset(
    (
        "Concat",
        "Constant",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
"""Operations that compute nothing: what they give is rounded already."""

RELAY_NAMES = {
    "nn.softmax": "Softmax", "nn.layer_norm": "LayerNormalization", "mean": "ReduceMean", "subtract": "Sub", "power": "Pow", "sqrt": "Sqrt",
    "divide": "Div", "nn.dense": "MatMul", "nn.batch_matmul": "MatMul",
}  # fmt: skip
"""Operations by their name in Relay, which is what ``skip_ops`` names, and in ONNX."""

REMEMBERED = 20_000
"""Rows whose outputs are kept, so that many tests on the same texts stay quick."""

_rows: dict[tuple[bytes, bytes], list[NDArray[Any]]] = {}


@dataclass(frozen=True)
class Module:
    """What Relay's IRModule is here: the graph, what it was fixed to, and what was done to it."""

    model: Any
    shapes: Mapping[str, Sequence[int]]
    passes: tuple[str, ...] = ()
    half: bool = False
    typed: bool = True
    """Whether every expression has a type, which building demands."""
    conversion: Mapping[str, str] = field(default_factory=dict)


class Library:
    """What ``relay.build`` gives."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __bytes__(self) -> bytes:
        return self._content


def serialise(module: Module) -> bytes:
    header = {
        "shapes": dict(module.shapes),
        "half": module.half,
        "passes": module.passes,
        "conversion": dict(module.conversion),
    }
    text = json.dumps(header).encode()
    return MAGIC + len(text).to_bytes(4, "big") + text + bytes(module.model.SerializeToString())


class Program:
    """An engine's content, executed by ONNX Runtime."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        if not content.startswith(MAGIC):
            raise RuntimeError("this is not an engine")
        start = len(MAGIC) + 4
        size = int.from_bytes(content[len(MAGIC) : start], "big")
        self._digest = hashlib.sha256(content).digest()
        self.header = json.loads(content[start : start + size])
        options = onnxruntime_settings(1)
        if self.header["half"]:
            # Not optimised: ONNX Runtime removes casts to float16 and back, which are the rounding.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = open_onnxruntime(content[start + size :], options)
        self.inputs = [node.name for node in self._session.get_inputs()]
        self.shapes: dict[str, list[int]] = self.header["shapes"]

    def check(self, name: str, array: NDArray[Any], engines: int) -> None:
        """An input as the contract has it: rows a multiple of the engines, contiguous, 64-bit ids."""
        rows, length = self.shapes[name]
        demand(array.dtype == np.int64, f"the input '{name}' is {array.dtype}; token inputs are int64")
        demand(array.flags.c_contiguous, f"the input '{name}' is not contiguous")
        demand(
            array.shape == (rows * engines, length),
            f"the input '{name}' has shape {array.shape}; {engines} engines of batch {rows} take ({rows * engines}, {length})",
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Each engine computes its own rows, as the SPAs do. Rows this process has computed before are remembered."""
        keys = [
            (self._digest, b"".join(array[row].tobytes() for array in inputs.values()))
            for row in range(len(next(iter(inputs.values()))))
        ]
        new = list({key: row for row, key in enumerate(keys) if key not in _rows}.values())
        rows = next(iter(self.shapes.values()))[0]
        for start in range(0, len(new), rows):
            chosen = new[start : start + rows]
            filled = [*chosen, *[chosen[-1]] * (rows - len(chosen))]
            outputs = self._session.run(None, {name: array[filled] for name, array in inputs.items()})
            for position, row in enumerate(chosen):
                _rows[keys[row]] = [output[position] for output in outputs]
        kept = [np.stack(parts) for parts in zip(*(_rows[key] for key in keys), strict=True)]
        if len(_rows) > REMEMBERED:
            _rows.clear()
        return [output.astype(np.float16) if self.header["half"] else output for output in kept]


def rounded(model: Any, skip_ops: Sequence[str] | None) -> Any:
    """A copy of ``model`` whose weights, constants and every float result pass through float16."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    exact = {RELAY_NAMES.get(name, name) for name in skip_ops or ()}
    made = onnx.shape_inference.infer_shapes(model)
    floats = {
        value.name
        for value in [*made.graph.value_info, *made.graph.output]
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }

    def cut(tensor: Any) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.clip(numpy_helper.to_array(tensor), -LARGEST, LARGEST).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    for tensor in made.graph.initializer:
        cut(tensor)
    nodes = []
    for node in made.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                cut(attribute.t)
        nodes.append(node)
        if node.op_type in MOVES or node.op_type in exact:
            continue
        for position, name in enumerate(node.output):
            if name in floats:
                node.output[position] = f"{name}/exact"
                nodes += [
                    helper.make_node("Cast", [f"{name}/exact"], [f"{name}/half"], to=TensorProto.FLOAT16),
                    helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT),
                ]
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made
