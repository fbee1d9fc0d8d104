"""A device that opens files of its own format, and the step that makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from zoo.api import (
    Artifact,
    Availability,
    Checkpoint,
    Device,
    Option,
    Precision,
    PrecisionInfo,
    Session,
    SessionOptions,
    ShapeRule,
    Step,
    Tensors,
    ZooError,
    hookimpl,
    import_onnxruntime,
)

STEP = Step(
    name="pack",
    version="1",
    summary="compress the file and put a header before it",
    run="zoo_packed_steps:pack",
    needs=frozenset({"a model file", "standard operators alone"}),
    takes=frozenset({"standard operators alone"}),
    modules={"onnx": "onnx"},
    reference="zoo_onnx.proof:reference",
    evaluate="zoo_packed_steps:evaluate",
)


class PackedSession:
    shape_rule = ShapeRule(tokens=2048, length_multiple=8)
    device_seconds: float | None = None

    def __init__(self, model: Any) -> None:
        self._model = model
        self.input_names: Sequence[str] = [node.name for node in model.get_inputs()]
        self._outputs = [node.name for node in model.get_outputs()]
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="packed")

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        return self._worker.submit(self._run, inputs, list(outputs or self._outputs))

    def _run(self, inputs: Tensors, outputs: list[str]) -> Tensors:
        return dict(zip(outputs, self._model.run(outputs, dict(inputs)), strict=True))

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)

    def __enter__(self) -> PackedSession:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class PackedDevice:
    name = "packed"
    aliases: Sequence[str] = ()
    priority = -20
    precisions: Mapping[Precision, PrecisionInfo] = {"fp32": PrecisionInfo(offered=True)}
    options: Sequence[Option] = ()

    def probe(self) -> Availability:
        return Availability(ok=True)

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        return ("export", "pack")

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        from zoo_packed_steps import unpacked

        if options.selector:
            raise ZooError(f"the device 'packed' has no part '{options.selector}'")
        try:
            content = unpacked(artifact.model.read_bytes())
            model = import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ZooError(f"the device 'packed' cannot open {artifact.model}: {error}") from error
        return PackedSession(model)


@hookimpl
def zoo_devices() -> Iterable[Device]:
    return [PackedDevice()]


@hookimpl
def zoo_steps() -> Iterable[Step]:
    return [STEP]
