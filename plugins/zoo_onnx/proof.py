"""What an ONNX file gives, on the CPU: the reference of a recipe that starts from one, and the evaluation of every step on graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.api import Job, onnxruntime_settings, open_onnxruntime, probes, usable_threads


def reference(job: Job) -> dict[str, Any]:
    """Record what the model file that the recipe starts from gives: on real pairs if a tokenizer is there, else on random inputs."""
    assert job.model
    session = open_session(job.model)
    names = [node.name for node in session.get_inputs()]
    if job.checkpoint and set(names) <= set(probes.FEATURES) and _dynamic(session):
        batches = probes.of_checkpoint(job.checkpoint, names)
    else:
        batches = probes.random_inputs(session, vocabulary_of(job.model))
    probes.save(job.reference, batches, [_outputs(session, batch) for batch in batches])
    return {}


def evaluate(job: Job, batches: Sequence[probes.Arrays]) -> list[probes.Arrays]:
    """The outputs of ``job.model`` for each batch."""
    assert job.model
    session = open_session(job.model)
    return [_outputs(session, batch) for batch in batches]


def open_session(model: Path) -> Any:
    """The file on the CPU, as a run would open it."""
    return open_onnxruntime(model, onnxruntime_settings(usable_threads(), join_int8=False))


def vocabulary_of(model: Path, default: int = 2) -> int:
    """Rows of the table that token ids index, read off the graph; ``default`` where none is found."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    tables = {tensor.name: tensor.dims for tensor in graph.initializer}
    inputs = {node.name for node in graph.input}
    rows = [
        int(tables[node.input[0]][0])
        for node in graph.node
        if node.op_type in ("Gather", "EmbedLayerNormalization")
        and len(tables.get(node.input[0], ())) == 2
        and node.input[1] in inputs
    ]
    return min(rows, default=default)


def _outputs(session: Any, batch: probes.Arrays) -> probes.Arrays:
    names = [node.name for node in session.get_outputs()]
    wanted = {node.name for node in session.get_inputs()}
    feed = {name: array for name, array in batch.items() if name in wanted}
    return dict(zip(names, session.run(names, feed), strict=True))


def _dynamic(session: Any) -> bool:
    return all(not isinstance(size, int) for node in session.get_inputs() for size in node.shape)
