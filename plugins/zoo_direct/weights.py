"""Where each tensor of a checkpoint lies, read from the headers of its safetensors files alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.api import InputError, ZooError, read_safetensors, weight_files
from zoo_direct import float8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAPPED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "|u1"}
"""numpy's types for the bytes of those that a model computes with."""
WRAPPERS = ("", "model.", "module.", "module.model.", "model.model.")
"""What stands before a name: ``model.`` in language models, ``module.`` from DistributedDataParallel, ``model.`` from FlagEmbedding."""
OLD_NAMES = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
"""Names that BERT's first checkpoints, converted from TensorFlow, use for the parameters of a normalisation."""
NEEDLESS = re.compile(
    r"""(^|\.)(
        pooler\. | lm_head\. | cls\. | \w*_predictions\. | vocab_\w+\.   # heads of the training before this one
        | embeddings\.position_ids$ | \w*\.?inv_freq$                     # computed, not learned
    )""",
    re.VERBOSE,
)
"""Tensors that checkpoints carry beside the ones that give a score."""


@dataclass(frozen=True)
class Tensor:
    """``shape`` numbers of type ``dtype`` (safetensors' name), from byte ``offset`` of ``file`` on."""

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def number_size(self) -> int:
        """Bytes that one number takes. Only for the types in ``MAPPED``."""
        return int(MAPPED[self.dtype][-1])


def read(tensor: Tensor, index: Any = ...) -> NDArray[np.float32]:
    """A tensor's numbers as float32, or some of its rows; the file is mapped, and the others are not read."""
    import numpy as np

    stored = np.memmap(tensor.file, MAPPED[tensor.dtype], "r", tensor.offset, shape=tensor.shape)[index]
    if tensor.dtype == "BF16":  # the upper half of a float32
        stored = (stored.astype("<u4") << 16).view("<f4")
    elif tensor.dtype == "F8_E4M3":
        stored = np.array(float8.E4M3, "<f4")[stored]
    return np.asarray(stored, "<f4")


class Weights:
    """The tensors of a checkpoint folder by name. It remembers which were taken, so that what nobody reads can be named."""

    def __init__(self, folder: Path) -> None:
        """Reads the headers. Raises ZooError if there are no safetensors, or if a file is damaged."""
        self.folder = folder
        self.files = _safetensors(folder)
        self._tensors: dict[str, Tensor] = {}
        self._taken: set[str] = set()
        for file in self.files:
            for name, stored in read_safetensors(file).items():
                if name in self._tensors:
                    raise InputError(file, None, f"holds '{name}', which {self._tensors[name].file.name} holds too")
                self._tensors[name] = Tensor(file, stored.offset, stored.dtype, stored.shape)

    def __contains__(self, name: str) -> bool:
        return self._stored_name(name) is not None

    def find(self, name: str) -> Tensor:
        """The tensor of this name, under a training script's prefix or an old name too. Raises ZooError if there is none."""
        stored = self._stored_name(name)
        if stored is None:
            raise ZooError(f"the weights in {self.folder} lack '{name}', which the model in config.json has")
        return self._tensors[stored]

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """The same for the graph: its shape must be the one that config.json asks for, and it is not left over."""
        tensor = self.find(name)
        if tensor.shape != tuple(shape):
            raise ZooError(
                f"'{name}' in {tensor.file} has the shape {list(tensor.shape)}; config.json asks for {list(shape)}"
            )
        self._taken.add(str(self._stored_name(name)))
        return tensor

    def left_over(self, needless: Sequence[str] = ()) -> list[str]:
        """Names of tensors that were not taken and that no score needs. Raises ZooError if others were not taken either.

        ``needless`` are parts of names that this model may carry without reading them.
        """
        names = sorted(set(self._tensors) - self._taken)
        unknown = [name for name in names if not NEEDLESS.search(name) and not any(part in name for part in needless)]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise ZooError(
                f"the weights in {self.folder} hold {', '.join(unknown[:5])}{more}, which the model in config.json does not have: "
                "weights and config.json are not of the same model"
            )
        return names

    def _stored_name(self, name: str) -> str | None:
        old = name
        for new_part, old_part in OLD_NAMES:
            old = old.replace(new_part, old_part)
        candidates = (wrapper + spelling for wrapper in WRAPPERS for spelling in (name, old))
        return next((candidate for candidate in candidates if candidate in self._tensors), None)


def _safetensors(folder: Path) -> list[Path]:
    files = [path for path in weight_files(folder) if path.suffix != ".json"]
    if pickled := [path.name for path in files if path.suffix != ".safetensors"]:
        raise ZooError(
            f"the weights in {folder} are pickled ({', '.join(pickled)}); only safetensors can be read without torch"
        )
    return files
