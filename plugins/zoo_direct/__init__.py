"""ONNX graphs written from a checkpoint's config.json and the headers of its safetensors files: no torch, transformers, optimum or onnx.

The weights stay where they are: each initializer of the graph is external data, a range of bytes of the checkpoint's own file.
``families.supports`` says from config.json alone whether a graph is known, ``build.write_graph`` writes it, and ``proof.expected``
computes the same logits in numpy, independently of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable

from zoo.api import ExportOffer, ExportRequest, Step, hookimpl

SECONDS = 6.0
"""CPU seconds for a model of 568 M parameters, its proof in numpy included."""


@hookimpl
def zoo_steps() -> Iterable[Step]:
    return [
        Step(
            name="export",
            exporter="direct",
            version="1",
            summary="write the graph from config.json; its weights are the checkpoint's own",
            run="zoo_direct.step:export",
            reference="zoo_direct.step:reference",
            evaluate="zoo_direct.step:evaluate",
            space=1.1,  # steps that follow, and OpenVINO where links are not possible, get a copy of the weights
            light=True,
            runtime_ops=True,
            can=_can,
        )
    ]


def _can(request: ExportRequest) -> ExportOffer:
    """Whether the graph of this checkpoint is known, and the steps that its form makes needless."""
    from zoo_direct.step import covered, reason

    why = reason(request)
    remedy = "Another exporter may know it: `exporter` optimum" if why else ""
    return ExportOffer(
        available=not why, cost_seconds=SECONDS, covers=covered(request.recipe), reason=why, remedy=remedy
    )
