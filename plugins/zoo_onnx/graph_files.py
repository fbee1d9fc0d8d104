"""What the steps share: reading and writing graphs of any size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from zoo.api import Job, computed_in_float16, load_onnx_weights, model_files, widen_weights

LARGEST_SINGLE_FILE = 2_000_000_000
"""protobuf cannot hold more than 2 GiB in one message; weights past this go into a file of their own."""
SMALLEST_BESIDE = 1024
"""Bytes of a tensor that is not worth a place beside the graph."""
RUNTIME_OPERATORS = "com.microsoft"


def write(model: Any, path: Path, *, external: bool = False) -> None:
    """One file, or the graph with ``<name>.data`` beside it."""
    import onnx

    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    onnx.save(
        model,
        str(path),
        save_as_external_data=external or size > LARGEST_SINGLE_FILE,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
        size_threshold=SMALLEST_BESIDE,
    )


def save(model: Any, job: Job) -> None:
    """Write the target's model file, weights beside it where they are too large for one file or that was asked for."""
    write(model, job.output, external=bool(job.options.get("external_data")))


def copied(job: Job, note: str) -> dict[str, Any]:
    """The step's file as it was, where there is nothing to do."""
    assert job.model
    for path in model_files(job.model):
        shutil.copyfile(path, job.output if path == job.model else job.target / path.name)
    return {"note": note}


def save_nodes(model: Any, job: Job) -> None:
    """Write a graph whose weights stay as they are: those beside it are moved here from the step before; a user's own are copied."""
    import onnx

    assert job.model
    for path in model_files(job.model):
        if path != job.model:
            ours = path.resolve().is_relative_to(job.target.resolve().parent)
            (shutil.move if ours else shutil.copyfile)(path, job.target / path.name)
    onnx.save(model, str(job.output))  # which leaves weights kept apart where they are


def load_nodes(model: Path) -> Any:
    """A graph without its large weights: past 2 GB even the constants of a graph lie beside it."""
    import onnx

    proto = onnx.load(model, load_external_data=False)
    load_onnx_weights(proto, model.parent, below=SMALLEST_BESIDE)
    return proto


def with_shapes(model: Path, scratch: Path) -> Any:
    """The loaded model with inferred types. By path, because onnx infers nothing on a loaded model past 2 GB."""
    import onnx

    inferred = scratch / "inferred.onnx"
    onnx.shape_inference.infer_shapes_path(str(model), str(inferred))
    proto = onnx.load(inferred, load_external_data=False)
    inferred.unlink()
    load_onnx_weights(proto, model.parent)
    return proto


def within_reach(model: Path, target: Path) -> Path:
    """The model inside the folder that is being worked in: the quantiser writes files beside the one it reads."""
    if model.is_relative_to(target.parent):
        return model
    place = target.with_name(f"{target.name}-source")
    place.mkdir()
    for path in model_files(model):
        shutil.copyfile(path, place / path.name)
    return place / model.name


def by_head(model: Path, target: Path) -> tuple[Path, list[str]]:
    """Names of the products whose weights have an axis for heads too, as folded keys and values have, and a model in which they have names.

    ONNX Runtime's kernel takes the zero points of a scale for each channel for matrices of two axes alone.
    """
    import onnx

    proto = onnx.load(model, load_external_data=False)
    deep = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) > 2}
    products = [node for node in proto.graph.node if node.op_type == "MatMul" and node.input[1] in deep]
    if not products:
        return model, []
    for number, node in enumerate(products):
        node.name = f"product_by_head_{number}"
    load_onnx_weights(proto, model.parent)
    place = target.with_name(f"{target.name}-named")
    place.mkdir()
    write(proto, place / "model.onnx")
    return place / "model.onnx", [node.name for node in products]


def widened(model: Path, target: Path) -> Path:
    """The model with weights that are stored in fewer bits and widened before use made float32, or the model itself where there are none.

    What widens them hides the weights from fusion and quantisation, and makes a float32 model look like a float16 one.
    """
    import onnx

    proto = onnx.load(model, load_external_data=False)
    small = (onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8)
    stored = any(tensor.data_type in small for tensor in proto.graph.initializer)
    if not stored or computed_in_float16(proto.graph):
        return model
    load_onnx_weights(proto, model.parent)
    place = target.with_name(f"{target.name}-widened")
    place.mkdir()
    write(widen_weights(proto), place / "model.onnx")
    return place / "model.onnx"


def declare_operators(model: Any) -> None:
    """Name the set of operators that fused nodes are of; onnx's shape inference refuses a graph that does not."""
    if all(entry.domain != RUNTIME_OPERATORS for entry in model.opset_import):
        entry = model.opset_import.add()
        entry.domain, entry.version = RUNTIME_OPERATORS, 1
