"""The export through torch and optimum: the reference that other exporters are compared with, and the way for what they do not know."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.api import ExportOffer, ExportRequest, Step, hookimpl

SECONDS = 150.0
"""CPU seconds to load torch, trace and write a model of 568 M parameters."""


@hookimpl
def zoo_steps() -> Iterable[Step]:
    return [
        Step(
            name="export",
            exporter="optimum",
            version="1",
            summary="trace the model in torch and write it as an ONNX graph with dynamic batch and length",
            run="zoo_optimum.torch_export:export",
            evaluate="zoo_onnx.proof:evaluate",
            space=1.1,
            space_split=2.1,
            modules={
                "torch": "torch",
                "transformers": "transformers",
                "optimum.exporters.onnx": "optimum-onnx",
                "onnx": "onnx",
            },
            can=_can,
        )
    ]


def _can(request: ExportRequest) -> ExportOffer:
    if request.head:
        return ExportOffer(available=False, reason="it exports the checkpoint's own classification head and no other")
    return ExportOffer(available=True, cost_seconds=SECONDS)
