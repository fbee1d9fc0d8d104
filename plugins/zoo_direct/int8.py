"""8-bit weights for ONNX Runtime, made from the checkpoint with numpy alone: one file beside the graph that holds them all.

Matrices go to MatMulNBits in blocks of 128 weights with a scale each; activations are rounded to 8 bits inside it as they come
(accuracy level 4). Tables of embeddings get a scale for each row, and only the rows that are picked are widened. Everything else is
copied as it is, so the result needs the checkpoint no longer. The operator takes 8 bits on a CPU from ONNX Runtime 1.22 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_direct.form import Linear
from zoo_direct.graph import Graph
from zoo_direct.onnx_bytes import FLOAT, INT8, UINT8
from zoo_direct.onnxruntime_form import OnnxRuntimeForm
from zoo_direct.weights import Tensor, Weights, read

BLOCK = 128
"""Weights that share a scale. Measured on a decoder: as exact as blocks of 32 (rank correlation 0.997 and 0.99), and a fifth faster."""
ZERO = 128
"""What stands for 0 where the operator is given no other zero point."""
LARGEST = 127
ROWS = 4096
"""Rows that are rounded at once: a table of a gigabyte is never held in float32."""
SMALLEST_TABLE = 1 << 16
"""Numbers of a table that is worth rounding."""
ALIGNED = 4096
"""Bytes; large tensors begin on a page, so that they can be mapped."""


class WeightFile:
    """A file of tensors laid end to end, written in the order they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = path.open("wb")
        self._end = 0

    def put(self, parts: Sequence[NDArray[Any]] | bytes) -> tuple[int, int]:
        """Append; the offset and the length in bytes."""
        chunks = [parts] if isinstance(parts, bytes) else [np.ascontiguousarray(part).tobytes() for part in parts]
        length = sum(len(chunk) for chunk in chunks)
        offset = self._end + -self._end % (ALIGNED if length >= ALIGNED else 64)
        self._handle.write(b"\0" * (offset - self._end))
        for chunk in chunks:
            self._handle.write(chunk)
        self._end = offset + length
        return offset, length

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()


class Int8Graph(Graph):
    """A graph whose weights are copied into a file of their own, large tables rounded to 8 bits."""

    def __init__(self, weights: Weights, file: WeightFile) -> None:
        super().__init__(weights, lambda _: file.path.name)
        self._file = file

    def place(self, tensor: Tensor, first: int, taken: Sequence[int]) -> tuple[str, int, int]:
        row = tensor.number_size * int(np.prod(taken[1:], dtype=np.int64))
        with tensor.file.open("rb") as handle:
            handle.seek(tensor.offset + first * row)
            return self._file.path.name, *self._file.put(handle.read(taken[0] * row))

    def rows_at(self, name: str, shape: Sequence[int], positions: str, *, rows: Sequence[int] = ()) -> str:
        if np.prod(shape) < SMALLEST_TABLE:
            return super().rows_at(name, shape, positions, rows=rows)
        first, count = rows or (0, shape[0])
        rounded, scales = self.once((name, first), lambda: self._table(name, shape, first, count))
        picked = self.add("Cast", self.add("Gather", rounded, positions), to=FLOAT)
        return self.add("Mul", picked, self.add("Gather", scales, positions))

    def _table(self, name: str, shape: Sequence[int], first: int, count: int) -> tuple[str, str]:
        tensor = self.weights.take(name, shape)
        parts, scales = [], np.empty((count, 1), np.float32)
        for begin in range(0, count, ROWS):
            values = read(tensor, slice(first + begin, first + min(begin + ROWS, count)))
            part, scales[begin : begin + ROWS] = rounded_rows(values)
            parts.append(part)
        location = self._file.path.name
        table = self.raw(f"{name}/int8", INT8, [count, shape[1]], location, *self._file.put(parts))
        return table, self.raw(f"{name}/scales", FLOAT, [count, 1], location, *self._file.put([scales]))

    def blocks(self, name: str, tensor: Tensor, first: int, count: int) -> tuple[str, str]:
        """Some rows of a matrix in blocks of 8 bits, and their scales."""
        packed, scales = rounded_blocks(read(tensor, slice(first, first + count)))
        location = self._file.path.name
        matrix = self.raw(f"{name}/int8", UINT8, packed.shape, location, *self._file.put([packed]))
        return matrix, self.raw(f"{name}/scales", FLOAT, scales.shape, location, *self._file.put([scales]))


class Int8Form(OnnxRuntimeForm):
    """ONNX Runtime's operators, with 8-bit weights in every product over all tokens. The head stays as it is: it gives the score."""

    graph: Int8Graph

    def times(self, x: str, linear: Linear) -> str:
        index, count = linear.part
        name = f"{linear.name}.weight"
        tensor = self.graph.weights.take(name, (count * linear.out, linear.into))
        label = name if count == 1 else f"{name}[{index * linear.out}:{(index + 1) * linear.out}]"
        matrix, scales = self.graph.once(
            (label, "blocks"), lambda: self.graph.blocks(label, tensor, index * linear.out, linear.out)
        )
        return self.add_own(
            "MatMulNBits", x, matrix, scales, K=linear.into, N=linear.out, bits=8, block_size=BLOCK, accuracy_level=4
        )

    def project_table(self, table: str, linear: Linear) -> str:
        return self.linear(table, linear)

    def first_attention(self, x: str, parts: Sequence[Linear], heads: int) -> tuple[str, str]:
        """With keys and values of all tokens: the shorter way reads their matrices by head, which the operator cannot."""
        query, key, value = parts
        size, first = query.out // heads, self.first_token(x)
        q, k, v = (
            self.heads_first(self.linear(source, part), heads, size)
            for source, part in ((first, query), (x, key), (x, value))
        )
        return first, self.mix(self.product(q, k, size**-0.5), v, query.out)


def rounded_blocks(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(out, in) as MatMulNBits reads it: (out, blocks, BLOCK) around ZERO, and the scale of each block, (out * blocks,).

    The weight furthest from 0 becomes 0 exactly, the far end of the range, whatever its sign.
    """
    out, into = matrix.shape
    blocks = -(-into // BLOCK)
    padded = np.zeros((out, blocks * BLOCK), np.float32)
    padded[:, :into] = matrix
    grouped = padded.reshape(out, blocks, BLOCK)
    furthest = np.take_along_axis(grouped, np.abs(grouped).argmax(-1)[..., None], -1)
    scales = furthest / -ZERO
    steps = np.rint(grouped / np.where(scales == 0, 1, scales)) + ZERO
    return np.clip(steps, 0, 2 * ZERO - 1).astype(np.uint8), scales.astype(np.float32).reshape(-1)


def rounded_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Each row as int8, and its scale, (row, 1): their product is within half a scale of the row."""
    furthest = np.abs(rows).max(-1, keepdims=True)
    scales = np.where(furthest > 0, furthest / LARGEST, 1).astype(np.float32)
    return np.rint(rows / scales).astype(np.int8), scales
