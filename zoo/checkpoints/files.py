"""What a checkpoint folder holds: tokenizer, weights in one of several forms, perhaps an exported model."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from zoo.checkpoints.digests import Digests
from zoo.checkpoints.onnx_files import read_onnx
from zoo.checkpoints.safetensors import read_safetensors
from zoo.errors import InputError, ZooError
from zoo.files import is_plain_name
from zoo.strict_json import read_object

TOKENIZER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files that a folder to run from has beside the model file."""
ONNX_PLACES = ("model.onnx", "onnx/model.onnx")
FORMS = (
    ("model.safetensors", "model.safetensors.index.json", "*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model*.bin"),
)
"""Weights in one file, the index of their shards, and what shards are called; the form that executes nothing comes first."""


def onnx_file(folder: Path) -> Path | None:
    """The exported model inside a checkpoint folder, if there is one."""
    return next((folder / place for place in ONNX_PLACES if (folder / place).is_file()), None)


def has_safetensors(folder: Path) -> bool:
    """Whether the folder has weights as safetensors, in one file or in shards with their index."""
    return any(folder.glob(FORMS[0][2]))


def has_pickled(folder: Path) -> bool:
    return any(folder.glob(FORMS[1][2]))


def weight_files(folder: Path) -> list[Path]:
    """The files the weights are read from: safetensors where there are any, else pickled ones; one file, or an index and its shards.

    Raises ZooError where there are none, or where a shard that the index names is missing.
    """
    for single, index, pattern in FORMS:
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            return [folder / index, *_shards(folder / index)]
        if files := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return files
    raise ZooError(f"{folder} has no weights: neither *.safetensors nor pytorch_model.bin")


def _shards(index: Path) -> list[Path]:
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise InputError(index, None, "is not an index of weights: 'weight_map' must name a file for each tensor")
    shards = sorted(set(names.values()))
    for name in shards:
        if not is_plain_name(name):
            raise InputError(
                index, None, f"names the file '{name}', which is outside its folder; such a file is not opened"
            )
    absent = [name for name in shards if not (index.parent / name).is_file()]
    if absent:
        raise ZooError(f"{index.parent} lacks {', '.join(absent)}, which {index.name} names")
    return [index.parent / name for name in shards]


def float32_bytes(folder: Path) -> int:
    """Bytes the checkpoint's weights take in float32. Raises ZooError if there are none, or if a shard is missing."""
    total = 0
    for path in weight_files(folder):
        total += 4 * _elements(path) if path.suffix == ".safetensors" else path.stat().st_size
    return total


def _elements(path: Path) -> int:
    return sum(math.prod(tensor.shape) for tensor in read_safetensors(path).values())


def model_files(model: Path) -> list[Path]:
    """An ONNX file and those beside it that hold its weights. Raises InputError if it is not one, or if one of them is missing."""
    return read_onnx(model).files


def fingerprint(model: Path, digests: Digests) -> str:
    """sha256 (64 hexadecimal digits) over a model file and its weights: an ONNX graph with its external data, or any other file.

    Raises InputError if the graph is damaged or lacks a file of its weights.
    """
    files = model_files(model) if model.suffix == ".onnx" else [model]
    digest = hashlib.sha256(digests.of(model).encode())
    for path in files[1:]:
        digest.update(f"{path.relative_to(model.parent).as_posix()} {digests.of(path)}".encode())
    return digest.hexdigest()
