"""Write a model folder as transformers reads it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def write_weights(out: Path, tensors: Mapping[str, np.ndarray]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it readable for its owner alone


def write_like(base: Path, out: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Other weights for the model in `base`: configuration and tokenizer are copied."""
    write_weights(out, tensors)
    for name in BESIDE:
        shutil.copyfile(base / name, out / name)
