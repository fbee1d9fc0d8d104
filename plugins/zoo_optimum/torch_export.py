"""The step ``export``: a checkpoint into torch, its scores for the proof, and the graph through optimum."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from zoo.api import Job, ZooError, model_files, probes

NO_WEIGHTS = ("position_ids", "inv_freq")
"""Endings of entries that older checkpoints carry and that are computed, not learned."""
UNREAD = re.compile(
    r"(^|\.)pooler\.|^(lm_head|cls\.predictions|cls\.seq_relationship|vocab_transform|vocab_layer_norm|vocab_projector)\b"
)
"""Heads of the pre-training that a classifier does not read; a checkpoint may have kept them."""
WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What training programs put before every key: torch's DistributedDataParallel, Lightning, torch.compile."""


def export(job: Job) -> dict[str, Any]:
    """Write ``model.onnx`` into the target, and torch's scores of the probe pairs beside it."""
    assert job.checkpoint
    model, note = load(job.checkpoint)
    batches = probes.of_checkpoint(job.checkpoint, _input_names(model))
    probes.save(job.reference, batches, [_torch_scores(model, batch) for batch in batches])
    _trace(model, job)
    del model
    gc.collect()
    kept = model_files(job.output)
    for path in job.target.iterdir():  # optimum leaves configuration, tokenizer and what an optimisation replaced
        if path not in kept:
            path.unlink()
    return {"compared_with": "torch, float32", "note": note}


def load(folder: Path) -> tuple[Any, str]:
    """The checkpoint as a float32 torch model, and a note on tensors that it does not read.

    Raises ZooError naming the keys if weights and model do not fit together.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise ZooError(f"{folder}/config.json describes no model that transformers knows: {_first(error)}") from error
    if config.num_labels != 1:
        raise ZooError(f"{folder} has a classifier with {config.num_labels} labels; a reranker has one")
    pickled = not any(folder.glob("*.safetensors"))
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            use_safetensors=not pickled,  # pickled weights are read by torch.load(weights_only=True), which executes nothing
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the mismatch is told by key below
        )
    except Exception as error:  # torch, safetensors and transformers raise classes of their own
        raise ZooError(f"the weights in {folder} cannot be read: {_first(error)}") from error
    note = _check_keys(folder, info)
    return model.to(torch.float32).eval(), note


def _check_keys(folder: Path, info: dict[str, Any]) -> str:
    """What was left unread, for the report. Raises ZooError if the weights do not fill the model in config.json."""
    missing = list(info.get("missing_keys", ()))
    mismatched = [entry[0] if isinstance(entry, tuple) else entry for entry in info.get("mismatched_keys", ())]
    left = [key for key in info.get("unexpected_keys", ()) if not key.endswith(NO_WEIGHTS)]
    if not missing and not mismatched and all(UNREAD.search(key) for key in left):
        return f"left unread: {_listed(left)}" if left else ""
    faults = [
        f"{label}: {_listed(keys)}"
        for label, keys in (("missing", missing), ("of another shape", mismatched), ("unexpected", left))
        if keys
    ]
    raise ZooError(
        f"the weights in {folder} do not fit the model in config.json; {'; '.join(faults)}. {_remark(missing, left)}"
    )


def _remark(missing: list[str], left: list[str]) -> str:
    wrapped = next((prefix for prefix in WRAPPERS if left and all(key.startswith(prefix) for key in left)), "")
    if wrapped and {key.removeprefix(wrapped) for key in left} & set(missing):
        return (
            f"Every key begins with '{wrapped}', as a training program wrote it: save the model again with save_pretrained, or take "
            "that off the keys"
        )
    if any("classifier" in key or "score" in key for key in missing):
        return "The checkpoint has no trained classifier, so it is an encoder and no reranker."
    return "Weights and config.json are not of the same model."


def _listed(keys: list[str], most: int = 8) -> str:
    shown = ", ".join(sorted(keys)[:most])
    return shown if len(keys) <= most else f"{shown} and {len(keys) - most} more"


def _input_names(model: Any) -> list[str]:
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if getattr(model.config, "type_vocab_size", 0) > 1 else names


def _torch_scores(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    import torch

    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits
    return {"logits": logits.numpy().astype(np.float32)}


def _trace(model: Any, job: Job) -> None:
    from optimum.exporters.onnx import onnx_export_from_model

    shapes = {name: int(job.options[name]) for name in ("sequence_length", "batch_size") if name in job.options}
    try:
        onnx_export_from_model(
            model,
            job.target,
            task=job.task,
            monolith=bool(job.options.get("monolith", False)),
            optimize=job.options.get("optimize"),
            # The default shapes are enough to trace; optimum validates at the trace's shape, which at 8192 takes 17 GB.
            do_validation="sequence_length" in shapes,
            **shapes,
        )
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        kind = json.loads((job.checkpoint / "config.json").read_text()).get("model_type") if job.checkpoint else "?"
        raise ZooError(f"optimum cannot export a model of type '{kind}' for {job.task}: {_first(error)}") from error


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
