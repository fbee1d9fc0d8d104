"""The steps after the export, each from one model file to one folder. They need no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo.api import Job
from zoo_onnx.graph_files import (
    LARGEST_SINGLE_FILE,
    by_head,
    copied,
    declare_operators,
    save,
    widened,
    with_shapes,
    within_reach,
)

NOTHING_FUSED = "no attention layer was fused: the graph has another form, or was simplified elsewhere before"
SATURATES = (
    ", with signed weights: they overflow on a CPU without int8 dot products (VNNI), and its scores may be far off"
)


def fuse(job: Job) -> dict[str, Any]:
    """Attention, layer normalisation with its skip connection and GELU with its bias become one node each."""
    from onnxruntime.transformers import optimizer

    assert job.model
    config = json.loads((job.checkpoint / "config.json").read_text(encoding="utf-8")) if job.checkpoint else {}
    fused = optimizer.optimize_model(
        str(widened(job.model, job.target)),
        model_type="bert",  # the name of the pattern: XLM-RoBERTa's layers have the same
        num_heads=int(config.get("num_attention_heads", 0)),
        hidden_size=int(config.get("hidden_size", 0)),
        opt_level=0,  # ONNX Runtime's own level would run here and again when the session opens
    )
    count = fused.get_fused_operator_statistics().get("Attention", 0)
    fused.topological_sort()
    declare_operators(fused.model)
    save(fused.model, job)
    return {"note": f"{count} attention layers fused" if count else NOTHING_FUSED}


def simplify(job: Job) -> dict[str, Any]:
    """Simplify the file itself: given a loaded model it needs more than twice the memory. Dynamic axes stay."""
    import onnx
    import onnxsim

    assert job.model
    limit_memory(int(job.options.get("memory", 0)))
    before = onnx.load(job.model, load_external_data=False)
    simplified, _ = onnxsim.simplify(str(job.model))
    if _axes(simplified) != _axes(before):
        raise RuntimeError(f"onnxsim changed the inputs' axes: {_axes(before)} became {_axes(simplified)}")
    save(simplified, job)
    onnx.checker.check_model(str(job.output))
    return {"note": f"{len(before.graph.node)} nodes became {len(simplified.graph.node)}"}


def half(job: Job) -> dict[str, Any]:
    """float16 inside, float32 at the graph's ends. A file that is in float16 already stays as it is."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    assert job.model
    model = widened(job.model, job.target)
    types = _weight_types(model)
    if onnx.TensorProto.FLOAT16 in types and onnx.TensorProto.FLOAT not in types:
        return copied(job, "it was in float16 already")
    save(convert_float_to_float16(with_shapes(model, job.target), keep_io_types=True, disable_shape_infer=True), job)
    return {}


def quantise(job: Job) -> dict[str, Any]:
    """int8 weights with a scale for each channel; activations become uint8 with a scale for each tensor as they come."""
    return _quantised(job, signed=True)


def quantise_unsigned(job: Job) -> dict[str, Any]:
    """The same with uint8 weights and a zero point for each channel, for a CPU without int8 dot products.

    There the kernel for signed weights adds two products of 8 bits in 16 and saturates (ONNX Runtime, "Quantize ONNX models",
    data type selection); the one for unsigned weights widens them first.
    """
    return _quantised(job, signed=False)


def _quantised(job: Job, *, signed: bool) -> dict[str, Any]:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    assert job.model
    graph = onnx.load(job.model, load_external_data=False).graph
    if any(node.op_type in ("DynamicQuantizeLinear", "DynamicQuantizeMatMul") for node in graph.node):
        saturates = not signed and any(tensor.data_type == onnx.TensorProto.INT8 for tensor in graph.initializer)
        return copied(job, f"it was quantised already{SATURATES if saturates else ''}")
    source, left_out = by_head(within_reach(widened(job.model, job.target), job.target), job.target)
    quantize_dynamic(
        source,
        job.output,
        nodes_to_exclude=left_out,
        per_channel=True,
        weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        use_external_data_format=_external(job),
        # Shapes behind fused operators cannot be inferred; every tensor whose type is unknown is float32 here.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return {}


def limit_memory(limit: int) -> None:
    """Bound what this process may allocate, if the system can; 0 means unbounded."""
    if limit:
        try:
            import resource
        except ImportError:  # Windows
            return
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _external(job: Job) -> bool:
    assert job.model
    size = sum(path.stat().st_size for path in job.model.parent.glob(f"{job.model.name}*"))
    # Embeddings and matrices shrink to a quarter.
    return size / 4 > LARGEST_SINGLE_FILE or bool(job.options.get("external_data"))


def _weight_types(model: Path) -> set[int]:
    import onnx

    return {tensor.data_type for tensor in onnx.load(model, load_external_data=False).graph.initializer}


def _axes(model: Any) -> list[tuple[str, list[str | int]]]:
    return [
        (node.name, [axis.dim_param or axis.dim_value for axis in node.type.tensor_type.shape.dim])
        for node in model.graph.input
    ]
