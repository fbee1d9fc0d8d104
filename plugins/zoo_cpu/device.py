"""ONNX Runtime on the CPU as a device."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from zoo.api import (
    Artifact,
    Availability,
    Checkpoint,
    NotInstalledError,
    Option,
    Precision,
    PrecisionInfo,
    SessionOptions,
    ZooError,
    cpu_flags,
    import_onnxruntime,
    onnxruntime_settings,
    open_onnxruntime,
    read_onnx,
    usable_threads,
)
from zoo_cpu.session import CpuSession

INT8_DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})
"""The instructions with which int8 matrix products run at a multiple of float32's speed in ONNX Runtime."""
FP16_COST = (
    "on a CPU float16 is computed in float32 anyway: no faster (0.93 to 1.05 times float32 measured), "
    "and scores move by up to 0.024; use it only to compare with a device that computes in float16"
)
INT8_COST = "scores move, by how much depends on the model: a quality report on labelled data tells"
NO_VNNI = "this CPU has no int8 dot product (VNNI), so int8 takes less memory here but is no faster; "
RECIPES: Mapping[Precision, tuple[str, ...]] = {
    # Fusing more buys nothing in float32, and costs 10.7 GB of memory to make at full size.
    "fp32": ("export", "first-token-only", "flash"),
    "fp16": ("export", "half"),
    "int8": ("export", "fuse", "quantise"),  # fused attention is quantised as one operator
}
WITHOUT_DOT_PRODUCT = ("export", "fuse", "quantise-unsigned")
"""int8 for other CPUs, where signed weights overflow: a random model of two layers was off by 0.69 of its largest score."""
PARALLEL_BATCHES = Option(
    name="parallel_batches",
    choices=("auto", "one", "all"),
    default="auto",
    spellings=("lanes",),
    help="Batches computed at once. one: a batch gets all threads, the lowest latency; all: each thread has a batch of its own, faster in "
    "sum because nothing waits for the slowest thread; auto: one for a single pair a batch, else all.",
)
OPTIONS = (
    Option(
        name="arena", choices=("on", "off"), default="on", help="off gives memory back to the system between batches."
    ),
    Option(
        name="optimization",
        choices=("all", "extended", "basic", "off"),
        default="all",
        help="ONNX Runtime's graph optimization level.",
    ),
    PARALLEL_BATCHES,
    Option(
        name="weights",
        choices=("packed", "shared"),
        default="packed",
        help="packed: each process lays its weights out anew for the matrix products; shared: it reads them where the checkpoint's file is "
        "mapped, one copy in memory for all processes, at 0.61 (a single short pair) to 0.96 of the speed.",
    ),
)


class CpuDevice:
    """Any CPU that ONNX Runtime runs on."""

    name = "cpu"
    aliases: Sequence[str] = ("onnx",)  # Tecorigin's scripts call this target 'onnx'
    priority = 0
    options: Sequence[Option] = OPTIONS

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]:
        fast = _multiplies_int8()
        return {
            "fp32": PrecisionInfo(offered=True),
            "int8": PrecisionInfo(offered=fast, cost=INT8_COST if fast else NO_VNNI + INT8_COST),
            "fp16": PrecisionInfo(offered=False, cost=FP16_COST),
        }

    def probe(self) -> Availability:
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(ok=False, reason="onnxruntime is not installed", remedy="pip install onnxruntime")
        native = "fp32, int8" if _multiplies_int8() else "fp32"
        return Availability(ok=True, details={"threads": str(usable_threads()), "native": native})

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        if precision == "int8" and not _multiplies_int8():
            return WITHOUT_DOT_PRODUCT
        return RECIPES[precision]

    def open(self, artifact: Artifact, options: SessionOptions) -> CpuSession:
        try:
            onnxruntime = import_onnxruntime()
        except ImportError as error:
            raise NotInstalledError(f"the device 'cpu' needs onnxruntime: {error}. pip install onnxruntime") from error
        if options.selector:
            raise ZooError(f"the device 'cpu' has no parts to choose from: it is 'cpu', not 'cpu:{options.selector}'")
        chosen = {option.name: option.default for option in OPTIONS} | dict(options.extra)
        threads = options.threads or usable_threads()
        parallel_batches = _parallel_batches(chosen["parallel_batches"], options.batch_size, threads)
        settings = onnxruntime_settings(max(threads // parallel_batches, 1), pack=chosen["weights"] == "packed")
        settings.inter_op_num_threads = 1
        settings.enable_cpu_mem_arena = chosen["arena"] == "on"
        settings.graph_optimization_level = {
            "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
            "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
            "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        }[chosen["optimization"]]
        if not artifact.model.is_file():
            raise ZooError(f"there is no model file {artifact.model}")
        if artifact.model.suffix != ".ort":  # ONNX Runtime's own form keeps its weights inside
            read_onnx(artifact.model)  # which refuses weights outside its folder before anything of them is read
        try:
            session = open_onnxruntime(artifact.model, settings, artifact.weights_folder)
        except Exception as error:  # ONNX Runtime raises classes of its own that differ between versions
            raise ZooError(
                f"ONNX Runtime {onnxruntime.__version__} cannot open {artifact.model}: {error}. "
                "If the file is over 2 GB, its weights must lie beside it under the name it was saved with."
            ) from error
        return CpuSession(session, parallel_batches)


def _parallel_batches(chosen: str, batch_size: int | None, threads: int) -> int:
    return 1 if chosen == "one" or (chosen == "auto" and batch_size == 1) else threads


def _multiplies_int8() -> bool:
    return bool(INT8_DOT_PRODUCT & cpu_flags())
