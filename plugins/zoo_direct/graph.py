"""A graph in the making: nodes, constants, and weights that stay in the files they lie in."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from zoo.api import ZooError
from zoo_direct import float8, onnx_bytes
from zoo_direct.onnx_bytes import BFLOAT16, FLOAT, FLOAT16, INT32, INT64, UINT8, AttributeValue
from zoo_direct.weights import Tensor, Weights

KINDS = {"F32": FLOAT, "F16": FLOAT16, "BF16": BFLOAT16, "F8_E4M3": UINT8}
"""Types of weights that a graph takes, by safetensors' names. 8-bit floats are bytes to it, and looked up: ONNX has them from operator
set 19 on, and not for every operator.
"""
Made = TypeVar("Made")
Call: TypeAlias = "tuple[Sequence[str], Mapping[str, AttributeValue]]"
"""The inputs and attributes of a node."""
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class Graph:
    """Nodes in the order they are added. Every tensor is known by its name; methods return the name of what they add."""

    def __init__(self, weights: Weights, location: Callable[[Path], str]) -> None:
        """``location`` gives the name that the graph calls a weights file by."""
        self.weights = weights
        self._location = location
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []
        self._known: dict[object, Any] = {}
        self._inputs: dict[str, bytes] = {}
        self._outputs: list[bytes] = []
        self._domains = {""}
        self._count = 0

    def input(self, name: str, axes: Sequence[int | str] = ("batch_size", "sequence_length"), kind: int = INT64) -> str:
        """Declare an input of the graph; a second time it is the same one."""
        self._inputs.setdefault(name, onnx_bytes.value(name, kind, axes))
        return name

    def output(self, name: str, source: str, axes: Sequence[int | str]) -> None:
        """Declare ``source`` as an output of the graph, called ``name``."""
        self._add("Identity", [source], name, "", {})
        self._outputs.append(onnx_bytes.value(name, FLOAT, axes))

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: AttributeValue) -> str:
        """One node; an empty input leaves an optional one out."""
        self._count += 1
        return self._add(op, inputs, f"{op}_{self._count}", domain, attributes)

    def choose(self, condition: str, op: str, then: Call, otherwise: Call) -> str:
        """An If: ``op`` of ONNX Runtime's domain, called in one of two ways. Both give (batch, token, width)."""
        self._count += 1
        self._domains.add(MICROSOFT)
        branches: dict[str, AttributeValue] = {}
        for branch, (inputs, attributes) in (("then_branch", then), ("else_branch", otherwise)):
            output = f"{op}_{self._count}/{branch}"
            made = onnx_bytes.node(op, inputs, output, MICROSOFT, attributes)
            result = onnx_bytes.value(output, FLOAT, ["batch_size", "sequence_length", "width"])
            branches[branch] = onnx_bytes.graph(branch, [made], outputs=[result])
        return self._add("If", [condition], f"If_{self._count}", "", branches)

    def integers(self, *values: int) -> str:
        """A constant vector of 64-bit integers, as shapes and axes want it."""
        return self._constant(INT64, [len(values)], struct.pack(f"<{len(values)}q", *values))

    def integer(self, value: int) -> str:
        """A constant 64-bit integer without axes."""
        return self._constant(INT64, [], struct.pack("<q", value))

    def number(self, value: float) -> str:
        """A constant float32 without axes."""
        return self._constant(FLOAT, [], struct.pack("<f", value))

    def numbers(self, values: Sequence[float], shape: Sequence[int]) -> str:
        """A constant float32 tensor, row by row."""
        return self._constant(FLOAT, shape, struct.pack(f"<{len(values)}f", *values))

    def bytes_of(self, kind: int, shape: Sequence[int], raw: bytes) -> str:
        """A constant of any type, from its bytes."""
        return self._constant(kind, shape, raw)

    def weight(
        self, name: str, shape: Sequence[int], *, rows: Sequence[int] = (), view: Sequence[int] = (), widen: bool = True
    ) -> str:
        """A tensor of the checkpoint, float32 whatever it is stored as unless ``widen`` is off.

        ``shape`` is what the file must say. ``rows`` (first, count) takes some rows of it, ``view`` reads the same bytes as another
        shape; neither copies anything. Smaller types are widened by nodes that runtimes fold when they open the file.
        """
        tensor = self.weights.take(name, shape)
        first, count = rows or (0, shape[0])
        taken = [count, *shape[1:]]
        label = name if len(rows) == 0 and len(view) == 0 else f"{name}[{first}:{first + count}]{list(view) or ''}"
        stored = self.stored(label, tensor, first, taken, view or taken)
        return self.once((stored, "widened"), lambda: self.widened(stored, tensor)) if widen else stored

    def stored(self, label: str, tensor: Tensor, first: int, taken: Sequence[int], seen_as: Sequence[int]) -> str:
        """An initializer of its own type: ``taken`` from row ``first`` on, seen as another shape."""
        if tensor.dtype not in KINDS:
            raise ZooError(
                f"'{label}' in {tensor.file} is stored as {tensor.dtype}; only {', '.join(KINDS)} can be used in place"
            )
        name = label if tensor.dtype == "F32" else f"{label}/{tensor.dtype}"
        return self.once(name, lambda: self.raw(name, KINDS[tensor.dtype], seen_as, *self.place(tensor, first, taken)))

    def place(self, tensor: Tensor, first: int, taken: Sequence[int]) -> tuple[str, int, int]:
        """The file that a graph finds these numbers in, by the graph's name for it, the first byte there, and how many there are."""
        row = tensor.number_size * math.prod(taken[1:])
        return self._location(tensor.file), tensor.offset + first * row, taken[0] * row

    def widened(self, name: str, tensor: Tensor) -> str:
        """What has the type that ``tensor`` is stored in, as float32."""
        if tensor.dtype == "F8_E4M3":
            return self.add("Gather", self.numbers(float8.E4M3, [256]), self.add("Cast", name, to=INT32))
        return name if tensor.dtype == "F32" else self.add("Cast", name, to=FLOAT)

    def rows_at(self, name: str, shape: Sequence[int], positions: str, *, rows: Sequence[int] = ()) -> str:
        """Rows of a table, as float32. They are widened after they are picked: a table of half precision stays as it is in memory."""
        picked = self.add("Gather", self.weight(name, shape, rows=rows, widen=False), positions)
        return self.widened(picked, self.weights.take(name, shape))

    def raw(self, name: str, kind: int, shape: Sequence[int], location: str, offset: int, length: int) -> str:
        """An initializer: ``length`` bytes from ``offset`` of the file that the graph calls ``location``."""
        self._tensors.append(onnx_bytes.external_tensor(name, kind, shape, location, offset, length))
        return name

    def once(self, key: object, make: Callable[[], Made]) -> Made:
        """What ``make`` adds, added once for all who ask for it by this key."""
        if key not in self._known:
            self._known[key] = make()
        made: Made = self._known[key]
        return made

    def size(self, name: str, axis: int) -> str:
        """The size of one axis, an integer without axes."""
        return self.add("Gather", self.add("Shape", name), self.integer(axis))

    def size_vector(self, name: str, axis: int) -> str:
        """The same as a vector of one, as shapes and the ends of slices want it.

        One is not made from the other: up to 1.18, ONNX Runtime gave the memory of an integer away while a Squeeze of it was in use.
        """
        return self.add("Gather", self.add("Shape", name), self.integers(axis))

    def encoded(self, name: str, operator_sets: Mapping[str, int], ir_version: int) -> bytes:
        """The finished file; of ``operator_sets`` those are declared that a node is of."""
        main = onnx_bytes.graph(
            name, self._nodes, tensors=self._tensors, inputs=self._inputs.values(), outputs=self._outputs
        )
        sets = {domain: version for domain, version in operator_sets.items() if domain in self._domains}
        return onnx_bytes.model(main, sets, ir_version, "zoo_direct")

    def _add(
        self, op: str, inputs: Sequence[str], output: str, domain: str, attributes: Mapping[str, AttributeValue]
    ) -> str:
        self._nodes.append(onnx_bytes.node(op, inputs, output, domain, attributes))
        self._domains.add(domain)
        return output

    def _constant(self, kind: int, shape: Sequence[int], raw: bytes) -> str:
        def make() -> str:
            name = f"constant_{len(self._tensors)}"
            self._tensors.append(onnx_bytes.tensor(name, kind, shape, raw))
            return name

        return self.once((kind, tuple(shape), raw), make)
