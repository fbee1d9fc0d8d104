"""The ONNX file as the compiler takes it: read, checked, its nodes sorted, its weights in one type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.api import NotInstalledError, Precision, ZooError, computed_in_float16, load_onnx, widen_weights
from zoo_sdaa.topological_order import sort_nodes


def load_model(model: Path) -> Any:
    """The whole ModelProto, with weights that lie in files beside it. Those that are only stored as float16 are made float32."""
    loaded = _read(model, weights=True)
    return loaded if computed_in_float16(loaded.graph) else widen_weights(loaded)


def load_graph(model: Path) -> Any:
    """The GraphProto without weights that lie in files beside it. Raises ZooError if the file cannot be read."""
    return _read(model, weights=False).graph


def graph_inputs(graph: Any) -> list[Any]:
    """The inputs that a call passes: in graph order, without those that are weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.input if node.name not in weights]


def check_types(model: Path, graph: Any, precision: Precision, *, converts: bool) -> None:
    """Raises ZooError if the compiler cannot take the file's types. ``converts``: the pass module has float32 made float16."""
    from onnx import TensorProto

    for node in graph_inputs(graph):
        kind = node.type.tensor_type.elem_type
        if kind != TensorProto.INT64:
            raise ZooError(
                f"{model}: the input '{node.name}' is {TensorProto.DataType.Name(kind)}; token ids and masks are INT64 on SDAA"
            )
    if not computed_in_float16(graph):
        return
    if precision != "fp16":
        raise ZooError(f"{model} computes in float16, and `precision` is {precision}: it must be fp16")
    if converts:
        raise ZooError(
            f"{model} computes in float16, and the pass module converts float32 to float16. Give one with need_convert = False, for "
            "example the device option pass_path=unconverted, or give the float32 file"
        )


def dimensions(model: Path, inputs: Sequence[Any]) -> dict[str, list[int | None]]:
    """Each input's rows and tokens; None for a symbolic one. Raises ZooError if an input has not two dimensions."""
    found = {node.name: [dim.dim_value or None for dim in node.type.tensor_type.shape.dim] for node in inputs}
    for name, dims in found.items():
        if len(dims) != 2:
            raise ZooError(
                f"{model}: the input '{name}' has {len(dims)} dimensions; token inputs have 2, rows and tokens"
            )
    return found


def _read(model: Path, *, weights: bool) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise NotInstalledError(
            f"compiling for 'sdaa' needs the Python module 'onnx' (pip install onnx): {error}"
        ) from error
    if not model.is_file():
        raise ZooError(f"there is no model file {model}")
    try:
        loaded = load_onnx(model) if weights else onnx.load(str(model), load_external_data=False)
    except ZooError:
        raise
    except Exception as error:  # protobuf's own classes, and OSError for a missing data file
        raise ZooError(f"{model} cannot be read as an ONNX file: {error}") from error
    sort_nodes(loaded.graph)
    return loaded
