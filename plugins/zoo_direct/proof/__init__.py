"""A second reading of every family, in numpy: what a graph must give, computed without it and without torch.

It shares the reader of safetensors files with what writes graphs, and nothing else: it reads config.json by itself, goes through the
rows of a batch laid end to end rather than padded, cuts no layer short, and multiplies in numpy's order. A mistake in one of the two
readings makes them differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo_direct.proof.arrays import Arrays, Rows

FAMILIES: Mapping[str, str] = {
    "bert": "encoders:bert",
    "camembert": "encoders:roberta",
    "deberta-v2": "deberta_v2:deberta_v2",
    "distilbert": "encoders:distilbert",
    "electra": "encoders:electra",
    "gemma": "decoders:gemma",
    "modernbert": "modernbert:modernbert",
    "mpnet": "encoders:mpnet",
    "new": "gte_new:gte_new",
    "qwen2": "decoders:qwen2",
    "qwen3": "decoders:qwen3",
    "roberta": "encoders:roberta",
    "xlm-roberta": "encoders:roberta",
}
"""``model_type`` of config.json -> the module here and its function, (weights, config, rows, head) -> (row,)."""


def expected(
    folder: Path, batches: Sequence[Mapping[str, NDArray[Any]]], head: Mapping[str, Any]
) -> list[NDArray[np.float32]]:
    """The logits of each batch, (batch, 1): what the graph of this checkpoint and head must give.

    A batch has ``input_ids`` and ``attention_mask``, (batch, token), padded on the right, and ``token_type_ids`` if the model has types.
    All rows of all batches are computed at once, in float32: each weight is read once, and mapped rather than loaded.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    module, name = FAMILIES[config["model_type"]].split(":")
    forward: Callable[..., NDArray[np.float32]] = getattr(import_module(f"zoo_direct.proof.{module}"), name)
    logits = forward(Arrays(folder), config, Rows.of(batches), head)
    parts = np.split(logits, np.cumsum([len(batch["input_ids"]) for batch in batches])[:-1])
    return [part.astype(np.float32).reshape(-1, 1) for part in parts]
