"""8-bit weights, made from the checkpoint with numpy alone: one file beside the graph that holds them all.

Matrices have a scale for each output channel, or for each block of 128 weights; tables of embeddings have one for each row, and only the
rows that are picked are widened. Everything else is copied as it is, so the result needs the checkpoint no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_direct.form import Linear
from zoo_direct.graph import Graph
from zoo_direct.onnx_bytes import FLOAT, INT8, UINT8
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

    def blocks(self, linear: Linear) -> tuple[str, str]:
        """A matrix in blocks of 8 bits as MatMulNBits reads it, and their scales."""
        return self._rounded(linear, UINT8, rounded_blocks)

    def channels(self, linear: Linear) -> tuple[str, str]:
        """A matrix as it lies in the file, (out, in), and the scale of each channel, (out,)."""

        def rounded(matrix: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
            steps, scales = rounded_rows(matrix)
            return steps, scales.reshape(-1)

        return self._rounded(linear, INT8, rounded)

    def turned_channels(self, linear: Linear, *, signed: bool) -> tuple[str, str]:
        """The same as (in, out), around 0 or around ZERO."""

        def rounded(matrix: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
            steps, scales = rounded_rows(matrix)
            turned = np.ascontiguousarray(steps.T)
            return turned if signed else (turned.astype(np.int16) + ZERO).astype(np.uint8), scales.reshape(-1)

        return self._rounded(linear, INT8 if signed else UINT8, rounded)

    def _rounded(
        self,
        linear: Linear,
        kind: int,
        rounded: Callable[[NDArray[np.float32]], tuple[NDArray[Any], NDArray[np.float32]]],
    ) -> tuple[str, str]:
        index, count = linear.part
        name = f"{linear.name}.weight"
        tensor = self.weights.take(name, (count * linear.out, linear.into))
        begin, end = index * linear.out, (index + 1) * linear.out
        label = name if count == 1 else f"{name}[{begin}:{end}]"

        def written() -> tuple[str, str]:
            matrix, scales = rounded(read(tensor, slice(begin, end)))
            location = self._file.path.name
            stored = self.raw(f"{label}/int8", kind, matrix.shape, location, *self._file.put([matrix]))
            return stored, self.raw(f"{label}/scales", FLOAT, scales.shape, location, *self._file.put([scales]))

        return self.once((label, "int8"), written)


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
