"""Tensors of a checkpoint, read from safetensors files straight to the device that computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from zoo.api import InputError, ZooError, weight_files

NOT_WEIGHTS = ("position_ids", "inv_freq", "token_type_ids")
"""Endings of entries that older checkpoints carry and that are computed, not learned."""
OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
"""Names that checkpoints converted from TensorFlow have."""


class Weights:
    """The tensors of a checkpoint's safetensors files by name. A context manager: the files are open inside the ``with`` block.

    ``take`` gives a tensor in ``dtype`` on ``device``; ``left_over`` names those that nobody took.
    """

    def __init__(self, files: Sequence[Path], device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._open: list[Any] = []
        self._place: dict[str, Any] = {}
        self._taken: set[str] = set()
        try:
            for path in files:
                self._add(path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        while self._open:
            self._open.pop().__exit__(None, None, None)

    def __contains__(self, name: str) -> bool:
        return self._name(name) is not None

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor ``name``. Raises ZooError when it is missing or not of ``shape``."""
        stored = self._name(name)
        if stored is None:
            raise MissingWeightError(name, self._prefix_before(name))
        self._taken.add(stored)
        try:
            tensor: torch.Tensor = self._place[stored].get_tensor(stored)
        except SafetensorError as error:
            raise ZooError(f"the weight '{stored}' cannot be read: {error}") from error
        if tuple(tensor.shape) != shape:
            raise ZooError(
                f"the weight '{stored}' has shape {tuple(tensor.shape)}; by config.json it has {shape}. "
                "Weights and config.json are not of the same model"
            )
        # Moved first: a card changes the type faster than the host, and a checkpoint in half precision is copied as it is.
        return tensor.to(self._device).to(self._dtype)

    def left_over(self) -> list[str]:
        """Names of learned tensors that nobody took."""
        return sorted(name for name in self._place.keys() - self._taken if not name.endswith(NOT_WEIGHTS))

    def _name(self, name: str) -> str | None:
        if name in self._place:
            return name
        for ending, old in OLD_NAMES.items():
            if name.endswith(ending) and (former := name.removesuffix(ending) + old) in self._place:
                return former
        return None

    def _prefix_before(self, name: str) -> str:
        """What stands before ``name`` in a longer name that ends with it, or ""."""
        return next((stored.removesuffix(name) for stored in self._place if stored.endswith(f".{name}")), "")

    def _add(self, path: Path) -> None:
        try:
            file: Any = safe_open(str(path), framework="pt")
            file.__enter__()
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(path, None, f"is not a whole safetensors file: {error}") from error
        self._open.append(file)
        self._place.update(dict.fromkeys(file.keys(), file))


class MissingWeightError(ZooError):
    """A weight that the architecture needs and the checkpoint does not have; ``prefix`` is what its names have in front."""

    def __init__(self, name: str, prefix: str = "") -> None:
        if prefix:
            remark = f"Its names begin with '{prefix}': it was saved from inside another model."
        elif name.split(".")[0] in ("classifier", "pre_classifier", "head", "score"):
            remark = "The checkpoint has no trained classifier, so it is an encoder and not a reranker."
        else:
            remark = "Weights and config.json are not of the same model."
        super().__init__(f"the checkpoint has no weight '{name}'. {remark}")
        self.name, self.prefix = name, prefix

    def __reduce__(self) -> tuple[type[MissingWeightError], tuple[str, str]]:
        return MissingWeightError, (self.name, self.prefix)


def safetensors_files(model: Path) -> tuple[Path, list[Path]]:
    """The folder of a checkpoint and its weights, from the folder itself or a file of it. Raises ZooError when there are none."""
    if model.is_dir():
        files = [path for path in weight_files(model) if path.suffix == ".safetensors"]
        if not files:
            raise ZooError(
                f"{model} has pickled weights alone, and this device reads safetensors: convert them once, "
                "with 'save_pretrained' of transformers"
            )
        return model, files
    if not model.is_file():
        raise ZooError(f"there is no checkpoint {model}")
    if model.suffix != ".safetensors":
        raise ZooError(
            f"{model} is not a safetensors file: this device opens a checkpoint (config.json and *.safetensors)"
        )
    return model.parent, [model]
