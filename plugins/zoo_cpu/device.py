"""ONNX Runtime on the CPU as a device."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from zoo.cpus import usable_threads
from zoo.errors import NotInstalledError, UnknownNameError, ZooError
from zoo.types import Artifact, Availability, Precision, PrecisionInfo, SessionOptions
from zoo_cpu.features import has_int8_dot_product
from zoo_cpu.session import CpuSession

FP16_COST = (
    "on a CPU float16 is computed in float32 anyway: no faster (0.93 to 1.05 times float32 measured), "
    "and scores move by up to 0.024; use it only to compare with a device that computes in float16"
)
INT8_COST = "scores move, by how much depends on the model: 'zoo export --precision int8 --quality DIR' measures it on labelled data"
NO_VNNI = "this CPU has no int8 dot product (VNNI), so int8 takes less memory here but is no faster; "
RECIPES: Mapping[Precision, tuple[str, ...]] = {
    # Fusing more buys nothing in float32, and costs 10.7 GB of memory to make at full size.
    "fp32": ("export", "trim", "flash"),
    "fp16": ("export", "half"),
    "int8": ("export", "fuse", "quantise"),  # fused attention is quantised as one operator
}
WITHOUT_DOT_PRODUCT = ("export", "fuse", "quantise-unsigned")
"""int8 for other CPUs, where signed weights overflow: a random model of two layers was off by 0.69 of its largest score."""
OPTIONS = {
    "arena": ("on", "off"),
    "optimization": ("all", "extended", "basic", "off"),
    "parallel_batches": ("auto", "one", "all"),
}
"""Device options: ``arena=off`` gives memory back between batches, ``optimization`` is ONNX Runtime's graph level, ``parallel_batches``
how many
batches are computed at once. ``one`` gives a batch all threads (the lowest latency), ``all`` gives each thread a batch of its own, which
is faster in sum because nothing waits for the slowest thread; ``auto`` is ``one`` where the user asks for a single pair a batch."""


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
        native = "fp32, int8" if has_int8_dot_product() else "fp32"
        return Availability(ok=True, details={"threads": str(usable_threads()), "native": native})

    def recipe(self, precision: Precision) -> tuple[str, ...]:
        if precision == "int8" and not has_int8_dot_product():
            return WITHOUT_DOT_PRODUCT
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
        threads = options.threads or usable_threads()
        parallel_batches = _parallel_batches(chosen["parallel_batches"], options.batch_size, threads)
        settings.intra_op_num_threads = max(threads // parallel_batches, 1)
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
        return CpuSession(session, parallel_batches)


def _parallel_batches(chosen: str, batch_size: int | None, threads: int) -> int:
    return 1 if chosen == "one" or (chosen == "auto" and batch_size == 1) else threads


def _checked(extra: Mapping[str, str]) -> dict[str, str]:
    chosen = {name: values[0] for name, values in OPTIONS.items()}
    for name, value in extra.items():
        if name not in OPTIONS:
            raise UnknownNameError("option of the device 'cpu' called", name, OPTIONS)
        if value not in OPTIONS[name]:
            raise ZooError(f"the device option {name}={value}: it takes {', '.join(OPTIONS[name])}")
        chosen[name] = value
    return chosen
