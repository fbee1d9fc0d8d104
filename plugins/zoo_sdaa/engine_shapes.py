"""The shapes an engine is compiled for: which inputs, how many rows and tokens, on how many SPAs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.api import SessionOptions, ShapeRule, ZooError
from zoo_sdaa.onnx_model import dimensions, graph_inputs

AUTO_ROWS = 128
"""Rows a batch if the user leaves them to the device: those of Tecorigin's reference run."""


@dataclass(frozen=True, kw_only=True)
class EngineShapes:
    """``inputs`` has the shape ``[engine_batch, length]`` of each input, in graph order, which is the order a call passes them in.

    Each of the ``engines`` SPAs has a copy of the engine, so a call has ``engine_batch * engines`` rows.
    """

    inputs: Mapping[str, Sequence[int]]
    outputs: Sequence[str]
    engines: int

    @property
    def rule(self) -> ShapeRule:
        """The batches a call takes."""
        rows, length = next(iter(self.inputs.values()))
        return ShapeRule(rows=rows * self.engines, length=length)


def rows_asked(options: SessionOptions) -> int:
    """Rows of a batch over all engines."""
    return options.batch_size or AUTO_ROWS


def engine_batch(batch_size: int, engines: int) -> int:
    """Rows of one engine, by Tecorigin's rule."""
    return max(batch_size // engines, 1)


def shapes_for(model: Path, graph: Any, *, batch_size: int, max_length: int, engines: int) -> EngineShapes:
    """Settle every dimension of an ONNX file's inputs. Raises ZooError if they are not what the compiler takes."""
    inputs = graph_inputs(graph)
    if not inputs:
        raise ZooError(f"{model}: the graph has no inputs")
    dims = dimensions(model, inputs)
    if any(size is None for dim in dims.values() for size in dim):
        # One symbolic dimension anywhere, and the caller gives the shapes of all inputs.
        shapes = {name: [engine_batch(batch_size, engines), max_length] for name in dims}
    else:
        shapes = {name: [int(size or 0) for size in dim] for name, dim in dims.items()}
        _check_fixed(model, shapes, max_length)
    return EngineShapes(inputs=shapes, outputs=[node.name for node in graph.output], engines=engines)


def _check_fixed(model: Path, shapes: Mapping[str, Sequence[int]], max_length: int) -> None:
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        raise ZooError(f"{model}: its inputs have different fixed shapes: {dict(shapes)}")
    length = next(iter(shapes.values()))[1]
    if max_length > length:
        raise ZooError(
            f"{model} is fixed to {length} tokens: give `max_length` {length} or less, or a file with dynamic axes"
        )
