"""A device of the tests that opens a checkpoint by writing its graph with zoo_direct: nothing is kept, nothing is proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch_device import TorchDevice
from zoo.api import Artifact, Precision, PrecisionInfo, SessionOptions, hookimpl, onnxruntime_settings, open_onnxruntime


class GraphDevice(TorchDevice):
    """Graphs of decoders take a past."""

    name = "graph-reference"
    precisions: Mapping[Precision, PrecisionInfo] = {"fp32": PrecisionInfo(offered=True)}
    aliases: Sequence[str] = ()

    def open(self, artifact: Artifact, options: SessionOptions):  # type: ignore[no-untyped-def]
        from zoo_cpu.session import CpuSession
        from zoo_direct.build import write_graph

        shared = "positive" in artifact.head or artifact.head.get("kind") == "label"
        head = dict(artifact.head) or {"kind": "label"}
        graph = write_graph(artifact.model, form="onnxruntime", head=head, shared_prefix=shared)
        place = artifact.model / "written.onnx"  # where every version of ONNX Runtime resolves the weights
        place.write_bytes(graph.model)
        return CpuSession(open_onnxruntime(place, onnxruntime_settings(options.threads or 1)))


class GraphPlugin:
    """``Catalogue.of(..., graph=GraphPlugin())``"""

    @hookimpl
    def zoo_devices(self) -> list[GraphDevice]:
        return [GraphDevice()]
