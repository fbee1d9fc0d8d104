"""OpenVINO on the CPU as a device."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.errors import NotInstalledError, UnknownNameError, ZooError
from zoo.threads import usable_threads
from zoo.types import Artifact, Availability, Precision, PrecisionInfo, SessionOptions
from zoo_openvino.session import OpenVinoSession

CPUINFO = Path("/proc/cpuinfo")
NATIVE_BF16 = ("avx512_bf16", "amx_bf16")
REMEDY = "pip install 'zoo-runner[openvino]'"
BF16_COST = (
    "scores move: by up to 0.24 of a deviation of 2.6, rank correlation 0.997 (random weights of full size, which are harsh); "
    "measure it on labelled data with --mode valid"
)
HINTS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16"}
OPTIONS = {"lanes": ("auto", "one", "all")}
"""Device options: ``lanes`` is how many batches are computed at once, as for the device ``cpu``."""


class OpenVinoDevice:
    """Any CPU that OpenVINO runs on."""

    name = "openvino"
    aliases: Sequence[str] = ("ov",)
    priority = -1
    """Below ``cpu``: in float32 they are about as fast, and OpenVINO takes more memory and longer to open a model."""

    def __init__(self, cpuinfo: Path = CPUINFO) -> None:
        self._cpuinfo = cpuinfo

    @property
    def precisions(self) -> Mapping[Precision, PrecisionInfo]:
        native = self._computes_bf16()
        slow = (
            "" if native else "this CPU has no bfloat16 arithmetic (avx512_bf16, amx_bf16), so bf16 is no faster here; "
        )
        return {"fp32": PrecisionInfo(offered=True), "bf16": PrecisionInfo(offered=native, cost=slow + BF16_COST)}

    def probe(self) -> Availability:
        if importlib.util.find_spec("openvino") is None:
            return Availability(ok=False, reason="openvino is not installed", remedy=REMEDY)
        native = "fp32, bf16" if self._computes_bf16() else "fp32"
        return Availability(ok=True, details={"threads": str(usable_threads()), "native": native})

    def recipe(self, precision: Precision) -> tuple[str, ...]:
        return ("export", "trim")  # it fuses by itself when it opens the graph, and rounds the weights then

    def open(self, artifact: Artifact, options: SessionOptions) -> OpenVinoSession:
        try:
            import openvino
        except ImportError as error:
            raise NotInstalledError(f"the device 'openvino' needs openvino: {error}. {REMEDY}") from error
        if options.selector:
            raise ZooError(
                f"the device 'openvino' has no parts to choose from: --target openvino, not openvino:{options.selector}"
            )
        threads = options.threads or usable_threads()
        chosen = _lanes(options.extra)
        lanes = 1 if chosen == "one" or (chosen == "auto" and options.batch_size == 1) else threads
        if not artifact.model.is_file():
            raise ZooError(f"there is no model file {artifact.model}")
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[options.precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": lanes,
        }
        try:
            compiled = openvino.Core().compile_model(str(artifact.model), "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError and classes of its own
            raise ZooError(
                f"OpenVINO {openvino.__version__} cannot open {artifact.model}: {error}. "
                "A graph that was fused or quantised for ONNX Runtime runs on --target cpu only."
            ) from error
        return OpenVinoSession(compiled, lanes)

    def _computes_bf16(self) -> bool:
        try:
            words = set(self._cpuinfo.read_text().split())
        except OSError:
            return False
        return bool(words & set(NATIVE_BF16))


def _lanes(extra: Mapping[str, str]) -> str:
    for name, value in extra.items():
        if name not in OPTIONS:
            raise UnknownNameError("option of the device 'openvino' called", name, OPTIONS)
        if value not in OPTIONS[name]:
            raise ZooError(f"the device option {name}={value}: it takes {', '.join(OPTIONS[name])}")
    return extra.get("lanes", "auto")
