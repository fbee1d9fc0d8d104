"""The steps that compare: what a model file gives against what its source gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.cpus import usable_threads
from zoo.statistics import spearman
from zoo_onnx import probes
from zoo_onnx.process import Job

FLOOR = 0.1
"""Scores smaller than this all around are compared absolutely: a model's own rounding does not shrink with its scores."""


def reference(job: Job) -> dict[str, Any]:
    """Record what the model file the recipe starts from gives: on real pairs where a tokenizer is at hand, else on random inputs."""
    assert job.model
    session = open_session(job.model)
    names = [node.name for node in session.get_inputs()]
    if job.checkpoint and set(names) <= {"input_ids", "attention_mask", "token_type_ids"} and _dynamic(session):
        batches = probes.of_checkpoint(job.checkpoint, names)
    else:
        batches = probes.random_inputs(session, vocabulary_of(job.model))
    probes.save(job.reference, batches, [_outputs(session, batch) for batch in batches])
    return {}


def prove(job: Job) -> dict[str, Any]:
    """The largest difference from the reference, absolute and over the reference's largest value, and the rank correlation."""
    assert job.model
    inputs, expected = probes.load(job.reference)
    session = open_session(job.model)
    pairs: list[tuple[Any, Any]] = []
    for batch, wanted in zip(inputs, expected, strict=True):
        given = _outputs(session, batch)
        for name, array in wanted.items():
            other = given[name] if name in given else next(iter(given.values()))
            if other.shape != array.shape:
                raise ValueError(f"the output '{name}' has shape {other.shape}; its source gives {array.shape}")
            pairs.append((array.astype(np.float64).ravel(), other.astype(np.float64).ravel()))
    wanted_all, given_all = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    error = float(np.max(np.abs(wanted_all - given_all)))
    first = next(iter(inputs[0]))
    return {
        "max_abs_error": error,
        "max_rel_error": error / max(float(np.max(np.abs(wanted_all))), FLOOR),
        "rank_correlation": spearman(wanted_all, given_all),
        "pairs": sum(len(batch[first]) for batch in inputs),
        "lengths": _lengths(inputs),
    }


def open_session(model: Path) -> Any:
    """The file on the CPU, as a run would open it."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = usable_threads()
    settings.log_severity_level = 3
    # Up to 1.23 at least, ONNX Runtime moves the nodes of int8 weights over the lookup of a table and then refuses its own graph.
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])


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


def _lengths(inputs: list[probes.Arrays]) -> list[int]:
    """Real tokens of each row where a mask tells, else the size of the last axis."""
    lengths: set[int] = set()
    for batch in inputs:
        mask = batch.get("attention_mask")
        if mask is not None:
            lengths |= {int(size) for size in mask.sum(axis=-1).ravel()}
        else:
            lengths |= {int(array.shape[-1]) if array.ndim else 1 for array in batch.values()}
    return sorted(lengths)
