"""OpenVINO on the CPU as a device."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

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
    import_openvino,
    read_onnx,
    usable_threads,
)
from zoo_openvino.session import OpenVinoSession

CPUINFO = Path("/proc/cpuinfo")
NATIVE: Mapping[Precision, Collection[str]] = {
    "bf16": ("avx512_bf16", "amx_bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
}
"""What the system calls the instructions that multiply in a precision; one of them is enough."""
EMULATES_BF16 = "avx512bw"
"""With AVX-512 alone OpenVINO computes bf16 by way of float32, slowly; on less it takes float32 in its place and does not say so."""
REMEDY = "pip install 'zoo-runner[openvino]'"
COSTS: Mapping[Precision, str] = {
    "bf16": "scores move: by up to 0.24 of a deviation of 2.6, rank correlation 0.997 (random weights of full size, which are harsh)",
    "int8": "scores move, by how much depends on the model",
}
MEASURE = "; a quality report on labelled data tells by how much"
RECIPES: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("export", "first-token-only"),  # OpenVINO fuses by itself when it opens the graph
    "bf16": ("export", "first-token-only"),  # and rounds the weights then
    # Weights only: OpenVINO rounds what they are multiplied with as it comes.
    "int8": ("export", "first-token-only", "weight-only-int8"),
}
OPTIONS = (
    Option(
        name="parallel_batches",
        choices=("auto", "one", "all"),
        default="auto",
        spellings=("lanes",),
        help="Batches computed at once, as for the device cpu.",
    ),
)


class OpenVinoDevice:
    """Any CPU that OpenVINO runs on."""

    name = "openvino"
    aliases: Sequence[str] = ("ov",)
    priority = -1
    """Below ``cpu``: in float32 they are about as fast, and OpenVINO takes more memory and longer to open a model."""

    options: Sequence[Option] = OPTIONS

    def __init__(self, cpuinfo: Path = CPUINFO) -> None:
        self._cpuinfo = cpuinfo

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]:
        able = self._computes("bf16") or EMULATES_BF16 in self._flags()
        lower: Sequence[Precision] = ("bf16", "int8") if able else ("int8",)
        return {"fp32": PrecisionInfo(offered=True), **{name: self._info(name) for name in lower}}

    def probe(self) -> Availability:
        if importlib.util.find_spec("openvino") is None:
            return Availability(ok=False, reason="openvino is not installed", remedy=REMEDY)
        native = ["fp32", *(name for name in NATIVE if self._computes(name))]
        return Availability(ok=True, details={"threads": str(usable_threads()), "native": ", ".join(native)})

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        return RECIPES[precision]

    def open(self, artifact: Artifact, options: SessionOptions) -> OpenVinoSession:
        try:
            openvino = import_openvino()
        except ImportError as error:
            raise NotInstalledError(f"the device 'openvino' needs openvino: {error}. {REMEDY}") from error
        if options.selector:
            raise ZooError(
                f"the device 'openvino' has no parts to choose from: it is 'openvino', not 'openvino:{options.selector}'"
            )
        threads = options.threads or usable_threads()
        chosen = options.extra.get("parallel_batches", "auto")
        parallel_batches = 1 if chosen == "one" or (chosen == "auto" and options.batch_size == 1) else threads
        if not artifact.model.is_file():
            raise ZooError(f"there is no model file {artifact.model}")
        if artifact.model.suffix == ".onnx":
            read_onnx(artifact.model)  # which refuses weights outside its folder before anything of them is read
        settings = {
            "INFERENCE_PRECISION_HINT": self._arithmetic(options.precision),
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": parallel_batches,
        }
        try:
            compiled = openvino.Core().compile_model(str(artifact.model), "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError and classes of its own
            raise ZooError(
                f"OpenVINO {openvino.__version__} cannot open {artifact.model}: {error}. "
                "A graph that was fused or quantised for ONNX Runtime runs on the device cpu only."
            ) from error
        arithmetic = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if options.precision == "bf16" and arithmetic != "bf16":
            raise ZooError(
                f"OpenVINO {openvino.__version__} computes in {arithmetic} on this CPU, not in bf16: use fp32"
            )
        return OpenVinoSession(compiled, parallel_batches)

    def _info(self, precision: Precision) -> PrecisionInfo:
        native = self._computes(precision)
        slow = f"this CPU has no {precision} arithmetic ({', '.join(NATIVE[precision])}), so {precision} is no faster here; "
        return PrecisionInfo(offered=native, cost=("" if native else slow) + COSTS[precision] + MEASURE)

    def _arithmetic(self, precision: Precision) -> str:
        """What OpenVINO calls the type it is to compute in. Beside int8 weights that is bfloat16 where the CPU has it."""
        if precision == "fp32" or (precision == "int8" and not self._computes("bf16")):
            return "f32"
        return "bf16"

    def _computes(self, precision: Precision) -> bool:
        return bool(self._flags() & set(NATIVE[precision]))

    def _flags(self) -> frozenset[str]:
        return cpu_flags(self._cpuinfo)
