"""The header of a safetensors file, read with the standard library and checked to the last byte.

A safetensors file is eight bytes with the length of a JSON header, the header, and the tensors' bytes without a gap
(https://github.com/huggingface/safetensors#format). A file that breaks this is refused: a header that is off by a byte would give
wrong numbers, not an error.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from zoo.errors import InputError
from zoo.files import reason
from zoo.strict_json import parse

LARGEST_HEADER = 100_000_000
"""Bytes: the bound that the safetensors library sets."""
BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Size of an element by safetensors' name of its type."""
Size = Annotated[int, msgspec.Meta(ge=0)]


class StoredTensor(NamedTuple):
    """``shape`` numbers of type ``dtype`` (safetensors' name), ``size`` bytes from byte ``offset`` of the file on."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The file's tensors by name; nothing of them is read. Raises InputError if it is not a safetensors file, or not a whole one."""
    header, begin, end = _header(path)
    found: dict[str, StoredTensor] = {}
    for name, content in header.items():
        try:
            entry = msgspec.convert(content, _Entry)
        except msgspec.ValidationError as error:
            raise InputError(
                path, None, f"its header does not describe '{name}' as safetensors does: {error}"
            ) from error
        first, last = entry.data_offsets
        if entry.dtype not in BYTES:
            raise InputError(
                path, None, f"its header does not describe '{name}' as safetensors does: no type '{entry.dtype}'"
            )
        if last - first != BYTES[entry.dtype] * math.prod(entry.shape):
            raise InputError(
                path,
                None,
                f"'{name}' has {last - first} bytes, which {list(entry.shape)} numbers of {entry.dtype} do not take",
            )
        found[name] = StoredTensor(entry.dtype, entry.shape, begin + first, last - first)
    place = begin
    for tensor in sorted(found.values(), key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != place:
            raise InputError(path, None, "is damaged: its tensors overlap, or there are bytes between them")
        place += tensor.size
    if place != end:
        raise InputError(
            path, None, f"is not whole, or has another file's header: its tensors end at byte {place} of {end}"
        )
    return found


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header's entries, where the tensors begin, and the size of the file."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(0)
            length = int.from_bytes(handle.read(8), "little")
            if not 0 < length <= min(LARGEST_HEADER, size - 8):
                raise InputError(path, None, "is not a safetensors file, or not a whole one")
            header = parse(handle.read(length))
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise InputError(path, None, f"is not a safetensors file: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise InputError(path, None, "is not a safetensors file: its header is not a JSON object")
    header.pop("__metadata__", None)
    return header, 8 + length, size
