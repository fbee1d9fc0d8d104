"""The step ``export`` without torch: which form a recipe asks for, where the weights are read from, and the proof."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.api import (
    ExportRequest,
    Job,
    ZooError,
    has_safetensors,
    onnxruntime_settings,
    onnxruntime_version,
    open_onnxruntime,
    probes,
    read_onnx,
    usable_threads,
)
from zoo_direct import proof
from zoo_direct.build import WrittenGraph, read_config, write_graph, write_int8_graph
from zoo_direct.families import supports
from zoo_direct.weights import Weights

FIRST_TOKEN, FLASH, FUSE = "first-token-only", "flash", "fuse"
TO_INT8: Mapping[tuple[str, ...], str] = {
    (FUSE, "quantise"): "channels",
    (FUSE, "quantise-unsigned"): "unsigned-channels",
    (FIRST_TOKEN, "weight-only-int8"): "weight-only",
}
"""Steps to 8-bit weights, and the form of a graph that does the same."""
BLOCKS = "blocks"
"""The form of a decoder for ONNX Runtime: its activations have numbers so large that they spoil a scale for a whole batch."""
BLOCKS_SINCE = (1, 22)
"""The first version of ONNX Runtime that multiplies blocks of 8 bits on a CPU."""
DECODERS = frozenset({"gemma", "qwen2", "qwen3"})
FROM_BYTES = (1, 21)
"""The first version of ONNX Runtime that opens a graph given as bytes with its weights in a folder."""


def covered(recipe: Sequence[str]) -> tuple[str, ...]:
    """The steps of a recipe that the graph is written with at once."""
    rest = tuple(name for name in recipe if name != "export")[:2]
    if rest in TO_INT8:
        return rest
    if FLASH in recipe:
        return (FIRST_TOKEN, FLASH)
    return (FIRST_TOKEN,) if FIRST_TOKEN in recipe else ()


def reason(request: ExportRequest) -> str:
    """Why this request cannot be done, or an empty string."""
    if request.checkpoint is None:
        return "it starts from a checkpoint"
    folder = request.checkpoint.folder
    steps = covered(request.recipe)
    if FUSE in request.recipe and FUSE not in steps:
        return "it does not write the nodes that the step 'fuse' looks for"
    if any(folder.glob("pytorch_model*.bin")) and not has_safetensors(folder):
        return "it reads safetensors, and the weights are pickled"
    try:
        config = read_config(folder)
        if FUSE in steps and config.get("model_type") in DECODERS and onnxruntime_version() < BLOCKS_SINCE:
            return "a decoder with 8-bit weights needs ONNX Runtime 1.22"
        return supports(config, _head(request.head))
    except ZooError as error:
        return str(error)


def export(job: Job) -> dict[str, Any]:
    """Write the graph; its weights are borrowed from the checkpoint, linked or copied, as the device that opens it needs them."""
    assert job.checkpoint
    if int8 := TO_INT8.get(tuple(job.covered)):
        return _rounded(job, int8)
    form = "onnxruntime" if FLASH in job.covered else "standard" if FIRST_TOKEN in job.covered else "plain"
    if form == "onnxruntime" and not job.following:
        return _borrowing(job, form)
    graph = _written(job, form, {})
    job.output.write_bytes(graph.model)
    how = {_placed(path, job.target / path.name, link=not job.following) for path in graph.borrowed}
    return {"note": "; ".join(filter(None, [graph.note, f"weights {' and '.join(sorted(how))}"]))}


def reference(job: Job) -> dict[str, Any]:
    """The logits that the graph must give, by the independent forward pass in numpy."""
    assert job.checkpoint
    assert job.model
    # A decoder also takes keys and values of a shared prefix, which are not text.
    names = [name for name in read_onnx(job.model).inputs if name in probes.FEATURES]
    batches = probes.of_checkpoint(job.checkpoint, names)
    logits = proof.expected(job.checkpoint, batches, _head(job.head))
    probes.save(job.reference, batches, [{"logits": each} for each in logits])
    return {"compared_with": "numpy, float32, computed from the checkpoint"}


def evaluate(job: Job, batches: Sequence[probes.Arrays]) -> list[probes.Arrays]:
    """What the graph gives for the batches, in ONNX Runtime on the CPU; a decoder's with nothing shared."""
    assert job.model
    import numpy as np

    # A hundred tokens are computed once: to have threads spin while they wait, and to pack weights for products, costs more than it gains.
    # At full size this is 1.7 s of CPU in place of 3.0. MatMulNBits has another kernel for weights that are not packed, so those of 8 bits
    # are packed.
    settings = onnxruntime_settings(usable_threads(), pack=job.weights_folder is None, join_int8=False)
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = open_onnxruntime(job.model, settings, job.weights_folder)

    def fed(batch: probes.Arrays) -> Mapping[str, Any]:
        past = {
            node.name: np.zeros(
                [size if isinstance(size, int) else 0 if axis else 1 for axis, size in enumerate(node.shape)],
                np.float32,
            )
            for node in session.get_inputs()
            if node.name not in batch
        }
        return {**{node.name: batch[node.name] for node in session.get_inputs() if node.name in batch}, **past}

    return [{"logits": session.run(["logits"], fed(batch))[0]} for batch in batches]


def _borrowing(job: Job, form: str) -> dict[str, Any]:
    """The graph alone; ONNX Runtime reads the weights where they lie, or through links beside the graph if it is old."""
    assert job.checkpoint
    files = {path.name: path.resolve() for path in Weights(job.checkpoint).files}
    folders = {path.parent for path in files.values()}
    if onnxruntime_version() >= FROM_BYTES and len(folders) == 1:
        graph = _written(job, form, {name: path.name for name, path in files.items()})
        folder = str(folders.pop())
        borrowed = {path.name: str(path) for path in files.values()}
    else:
        graph = _written(job, form, {})
        for name, path in files.items():
            (job.target / name).symlink_to(path)
        folder, borrowed = "", {name: str(path) for name, path in files.items()}
    job.output.write_bytes(graph.model)
    return {"note": graph.note, "borrowed": borrowed, "weights_folder": folder}


def _rounded(job: Job, form: str) -> dict[str, Any]:
    """The graph with 8-bit weights beside it, which needs the checkpoint no longer."""
    assert job.checkpoint
    blocks = FUSE in job.covered and _is_decoder(job.checkpoint)
    graph = write_int8_graph(
        job.checkpoint,
        job.output.with_name(f"{job.output.name}.data"),
        form=BLOCKS if blocks else form,
        head=_head(job.head),
        shared_prefix=blocks and bool(job.head),
    )
    job.output.write_bytes(graph.model)
    return {"note": graph.note}


def _is_decoder(folder: Path) -> bool:
    return read_config(folder).get("model_type") in DECODERS


def _written(job: Job, form: str, names: Mapping[str, str]) -> WrittenGraph:
    assert job.checkpoint
    shared = _is_decoder(job.checkpoint) and bool(job.head) and form == "onnxruntime"
    return write_graph(
        job.checkpoint,
        form=form,
        head=_head(job.head),
        locations=lambda path: names.get(path.name, path.name),
        shared_prefix=shared,
    )


def _head(head: Mapping[str, Any]) -> Mapping[str, Any]:
    """An architecture that says nothing wants the checkpoint's own classification head."""
    return dict(head) or {"kind": "label"}


def _placed(source: Path, target: Path, *, link: bool) -> str:
    """Put a weights file beside the graph, by a hard link if that is wanted and possible."""
    if link:
        try:
            target.hardlink_to(source.resolve())
        except (OSError, NotImplementedError):  # the file system has none, or the whole system
            pass
        else:
            return "linked"
    shutil.copyfile(source, target)
    return "copied"
