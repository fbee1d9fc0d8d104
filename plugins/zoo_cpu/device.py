"""ONNX Runtime on the CPU as a device."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from zoo.errors import NotInstalledError, UnknownNameError, ZooError
from zoo.threads import usable_threads
from zoo.types import Artifact, Availability, Precision, PrecisionInfo, SessionOptions, ShapeRule, Tensors
from zoo_cpu.features import has_int8_dot_product

if TYPE_CHECKING:
    import onnxruntime

FP16_COST = (
    "on a CPU float16 is computed in float32 anyway: no faster (0.93 to 1.05 times float32 measured), "
    "and scores move by up to 0.024; use it only to compare with a device that computes in float16"
)
INT8_COST = "scores move, by how much depends on the model: 'zoo export --precision int8 --quality DIR' measures it on labelled data"
NO_VNNI = "this CPU has no int8 dot product (VNNI), so int8 is no faster here and may saturate; "
RECIPES: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("export",),  # fusion buys nothing in float32 at full size, and costs 10.7 GB of memory to make
    "fp16": ("export", "half"),
    "int8": ("export", "fuse", "quantise"),  # fused attention is quantised as one operator
}
OPTIONS = {"arena": ("on", "off"), "optimization": ("all", "extended", "basic", "off")}
"""Device options: ``arena=off`` gives memory back between batches, ``optimization`` is ONNX Runtime's graph level."""


class CpuDevice:
    """Any CPU that ONNX Runtime runs on."""

    name = "cpu"
    aliases: Sequence[str] = ("onnx",)  # the vendor's scripts call this target 'onnx'
    priority = 0

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]:
        fast = has_int8_dot_product()
        return {
            "fp32": PrecisionInfo(offered=True),
            "int8": PrecisionInfo(offered=fast, cost=INT8_COST if fast else NO_VNNI + INT8_COST),
            "fp16": PrecisionInfo(offered=False, cost=FP16_COST),
        }

    def probe(self) -> Availability:
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(ok=False, reason="onnxruntime is not installed", remedy="pip install onnxruntime")
        return Availability(ok=True, details={"threads": str(usable_threads())})

    def recipe(self, precision: Precision) -> tuple[str, ...]:
        return RECIPES[precision]

    def open(self, artifact: Artifact, options: SessionOptions) -> CpuSession:
        try:
            import onnxruntime
        except ImportError as error:
            raise NotInstalledError(f"the device 'cpu' needs onnxruntime: {error}. pip install onnxruntime") from error
        if options.selector:
            raise ZooError(f"the device 'cpu' has no parts to choose from: --target cpu, not cpu:{options.selector}")
        chosen = _checked(options.extra)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads or usable_threads()
        settings.inter_op_num_threads = 1
        settings.enable_cpu_mem_arena = chosen["arena"] == "on"
        settings.graph_optimization_level = {
            "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
            "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        }[chosen["optimization"]]
        settings.log_severity_level = 3  # warnings about unused initialisers are not the user's business
        if not artifact.model.is_file():
            raise ZooError(f"there is no model file {artifact.model}")
        try:
            session = onnxruntime.InferenceSession(str(artifact.model), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own that differ between versions
            raise ZooError(
                f"ONNX Runtime {onnxruntime.__version__} cannot open {artifact.model}: {error}. "
                "If the file is over 2 GB, its weights must lie beside it under the name it was saved with."
            ) from error
        return CpuSession(session)


def _checked(extra: Mapping[str, str]) -> dict[str, str]:
    chosen = {name: values[0] for name, values in OPTIONS.items()}
    for name, value in extra.items():
        if name not in OPTIONS:
            raise UnknownNameError("option of the device 'cpu' called", name, OPTIONS)
        if value not in OPTIONS[name]:
            raise ZooError(f"the device option {name}={value}: it takes {', '.join(OPTIONS[name])}")
        chosen[name] = value
    return chosen


class CpuSession:
    """One ONNX Runtime session, run on a thread of its own so that the host prepares the next batch meanwhile."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._types = {node.name: node.type for node in session.get_inputs()}
        self.input_names: Sequence[str] = list(self._types)
        self._outputs = [node.name for node in session.get_outputs()]
        self.shape_rule = _static_shape(session.get_inputs())
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="zoo-cpu")

    def submit(self, inputs: Tensors) -> Future[Tensors]:
        return self._worker.submit(self._run, inputs)

    def _run(self, inputs: Tensors) -> Tensors:
        if self._session is None:
            raise ZooError("this session is closed")
        feed = {
            name: array.astype("int32") if self._types[name] == "tensor(int32)" else array
            for name, array in inputs.items()
        }
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        except Exception as error:  # see open()
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise ZooError(f"ONNX Runtime failed on a batch ({shapes}): {error}") from error

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._session = None

    def __enter__(self) -> CpuSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _static_shape(inputs: Sequence[Any]) -> ShapeRule:
    """The fixed batch and length of a graph exported without dynamic axes; nothing where they are symbolic."""
    rows, length = [*inputs[0].shape, None, None][:2] if inputs else (None, None)
    return ShapeRule(
        rows=rows if isinstance(rows, int) else None,
        length=length if isinstance(length, int) else None,
    )
