"""What an engine is compiled for: which inputs, which shapes, on how many SPAs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.api import NotInstalledError, SessionOptions, ShapeRule, ZooError
from zoo_sdaa.float16_weights import computed_in_half, widen


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Shapes are those of one engine: ``[engine_batch, length]`` for each input; a call has ``engine_batch * engines`` rows."""

    shapes: Mapping[str, Sequence[int]]
    outputs: Sequence[str]
    engines: int

    @property
    def inputs(self) -> list[str]:
        """In graph order, which is the order a call passes them in."""
        return list(self.shapes)

    @property
    def rule(self) -> ShapeRule:
        """The batches a call takes."""
        engine_batch, length = next(iter(self.shapes.values()))
        return ShapeRule(rows=engine_batch * self.engines, length=length)


AUTO_ROWS = 128
"""Rows a batch where the user leaves them to the device: those of the vendor's reference run."""


def rows_asked(options: SessionOptions) -> int:
    """Rows of a batch over all engines."""
    return options.batch_size or AUTO_ROWS


def engine_batch(batch_size: int, engines: int) -> int:
    """Rows of one engine, by the vendor's rule."""
    return max(batch_size // engines, 1)


def plan_for(model: Path, *, batch_size: int, max_length: int, engines: int) -> Plan:
    """Read an ONNX file's inputs and settle every dimension. Raises ZooError where it is not what the compiler takes."""
    graph = _load(model, weights=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [node for node in graph.input if node.name not in weights]
    if not inputs:
        raise ZooError(f"{model}: the graph has no inputs")
    _check_types(model, graph, inputs)
    dims = {node.name: [dim.dim_value or None for dim in node.type.tensor_type.shape.dim] for node in inputs}
    for name, dim in dims.items():
        if len(dim) != 2:
            raise ZooError(
                f"{model}: the input '{name}' has {len(dim)} dimensions; token inputs have 2, rows and tokens"
            )
    if any(size is None for dim in dims.values() for size in dim):
        # One symbolic dimension anywhere, and the caller gives the shapes of all inputs.
        shapes = {name: [engine_batch(batch_size, engines), max_length] for name in dims}
    else:
        shapes = {name: [int(size or 0) for size in dim] for name, dim in dims.items()}
        _check_static(model, shapes, max_length)
    return Plan(shapes=shapes, outputs=[node.name for node in graph.output], engines=engines)


def _check_types(model: Path, graph: Any, inputs: Sequence[Any]) -> None:
    from onnx import TensorProto

    for node in inputs:
        kind = node.type.tensor_type.elem_type
        if kind != TensorProto.INT64:
            raise ZooError(
                f"{model}: the input '{node.name}' is {TensorProto.DataType.Name(kind)}; token ids and masks are INT64 on SDAA"
            )
    if computed_in_half(graph):
        raise ZooError(
            f"{model} computes in float16. The compiler takes the float32 file and makes half precision itself (--half)"
        )


def _check_static(model: Path, shapes: Mapping[str, Sequence[int]], max_length: int) -> None:
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        raise ZooError(f"{model}: its inputs have different fixed shapes: {dict(shapes)}")
    length = next(iter(shapes.values()))[1]
    if max_length > length:
        raise ZooError(
            f"{model} is fixed to {length} tokens: use --shape {length} or less, or a file with dynamic axes"
        )


def load_model(model: Path) -> Any:
    """The whole ModelProto in float32, with weights that lie in files beside it."""
    return widen(_load(model, weights=True))


def _load(model: Path, *, weights: bool) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise NotInstalledError(
            f"compiling for 'sdaa' needs the Python module 'onnx' (pip install onnx): {error}"
        ) from error
    if not model.is_file():
        raise ZooError(f"there is no model file {model}")
    try:
        return onnx.load(str(model), load_external_data=weights)
    except Exception as error:  # protobuf's own classes, and OSError for a missing data file
        raise ZooError(f"{model} cannot be read as an ONNX file: {error}") from error


def fingerprint(model: Path) -> str:
    """sha256 over the file and the weight files it names, so that an edited model is compiled anew."""
    digest = hashlib.sha256()
    _update(digest, model)
    graph = _load(model, weights=False).graph
    places = {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}
    for place in sorted(places):
        if not (model.parent / place).is_file():
            raise ZooError(f"{model} keeps weights in {place}, which does not lie beside it")
        _update(digest, model.parent / place)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of one file."""
    digest = hashlib.sha256()
    _update(digest, path)
    return digest.hexdigest()


def _update(digest: Any, path: Path) -> None:
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
