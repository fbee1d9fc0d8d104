"""Reading and writing safetensors files by their format: 8 bytes of length, a JSON header, then the tensors' bytes.

Tensors are copied from file to file in blocks, so that a checkpoint of any size takes little memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.api import InputError, read_safetensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 1 << 22


@dataclass(frozen=True)
class Tensor:
    """A tensor as it is stored: its bytes are ``size`` of the file ``path`` from ``offset`` on, or ``content``."""

    dtype: str
    shape: Sequence[int]
    size: int
    path: Path | None = None
    offset: int = 0
    content: bytes = b""

    @classmethod
    def of(cls, array: NDArray[np.float32]) -> Tensor:
        return cls("F32", list(array.shape), array.nbytes, content=array.tobytes())

    def blocks(self) -> Iterator[bytes]:
        """Its bytes in order. Raises InputError if the file is cut short."""
        if self.path is None:
            yield self.content
            return
        left = self.size
        with self.path.open("rb") as handle:
            handle.seek(self.offset)
            while left:
                block = handle.read(min(left, BLOCK))
                if not block:
                    raise InputError(self.path, None, "is not a whole safetensors file")
                left -= len(block)
                yield block

    def array(self) -> NDArray[np.float32]:
        """float32 values of the tensor's shape. Raises InputError for other types than F32, F16 and BF16."""
        import numpy as np

        raw = b"".join(self.blocks())
        if self.dtype == "BF16":
            values: Any = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        elif self.dtype in ("F32", "F16"):
            values = np.frombuffer(raw, "<f4" if self.dtype == "F32" else "<f2").astype(np.float32)
        else:
            raise InputError(
                self.path or "a tensor", None, f"has a tensor of type {self.dtype}; numbers of 16 or 32 bits are needed"
            )
        shaped: NDArray[np.float32] = values.reshape(self.shape)
        return shaped


def read_header(path: Path) -> dict[str, Tensor]:
    """The file's tensors by name; nothing of them is read. Raises InputError."""
    return {
        name: Tensor(stored.dtype, stored.shape, stored.size, path, stored.offset)
        for name, stored in read_safetensors(path).items()
    }


def write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A file of these tensors, in their order. Raises OSError, and InputError if a source is damaged."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.size],
        }
        place += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            for block in tensor.blocks():
                handle.write(block)
