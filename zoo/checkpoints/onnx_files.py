"""What an ONNX file says of itself, read with the standard library: external data, element types, operator domains.

The protobuf wire format is walked without decoding tensors, so that a file of 2 GB is read in milliseconds and the runtime core needs
no ``onnx``. Field numbers: onnx.proto (ModelProto 7 graph, 8 opset_import; GraphProto 1 node, 5 initializer, 11 input,
15 sparse_initializer; ValueInfoProto 1 name; NodeProto 4 op_type, 5 attribute, 7 domain; AttributeProto 5 t, 6 g, 10 tensors, 11 graphs;
TensorProto 1 dims, 2 data_type, 8 name, 13 external_data, 14 data_location).
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zoo.checkpoints.safetensors import read_safetensors
from zoo.errors import InputError
from zoo.files import is_plain_name, reason

DEEPEST = 32
"""Graphs inside attributes of nodes, inside graphs."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass
class OnnxFile:
    """``external`` holds the places of external data as the file writes them; ``element_types`` are those of its stored tensors."""

    path: Path
    nodes: int = 0
    external: set[str] = field(default_factory=set)
    element_types: set[int] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    """Operator types, those outside the standard as ``domain.type``."""
    opsets: dict[str, int] = field(default_factory=dict)
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """Place, first byte and number of bytes of external data that says both."""
    inputs: list[str] = field(default_factory=list)
    """Names, in the graph's order; a file of before 2019 lists its weights among them."""

    @property
    def files(self) -> list[Path]:
        """The file and those that hold its weights. Raises InputError if one is missing."""
        places = [self.path.parent / name for name in sorted(self.external)]
        absent = [path.name for path in places if not path.is_file()]
        if absent:
            raise InputError(self.path, None, f"keeps its weights in {', '.join(absent)}, which must lie beside it")
        return [self.path, *places]


def read_onnx(path: Path) -> OnnxFile:
    """What an ONNX file says of itself: inputs, operators, types, external data. No tensor is decoded.

    Raises InputError if it is not an ONNX file, or if it names weights outside its own folder.
    """
    found = OnnxFile(path)
    try:
        with path.open("rb") as handle:
            if not handle.seek(0, 2):
                raise InputError(path, None, "is not an ONNX file: it is empty")
            # Closed when nothing refers to it any more: an error may still hold a part of it.
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        _model(memoryview(content), found)
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {reason(error)}") from error
    except (ValueError, IndexError) as error:
        raise InputError(path, None, f"is not an ONNX file, or it is damaged: {error}") from error
    if not found.nodes:
        raise InputError(path, None, "is not an ONNX file: it has no graph")
    for name in found.external:
        # As the file writes it, before links are followed: those of the hub's snapshots lead outside, and are the user's own.
        if not all(is_plain_name(part) for part in name.removeprefix("./").split("/")):
            raise InputError(
                path,
                None,
                f"keeps its weights in {name!r:.200}, which is outside its folder; such a file is not opened",
            )
    _check_safetensors(found)
    return found


def _check_safetensors(found: OnnxFile) -> None:
    """Raises InputError if weights are read from places of a safetensors file at which no tensor lies.

    A file that was written again may have a header of another length: the graph would then compute with other numbers, and not fail.
    """
    for name in sorted(found.external):
        path = found.path.parent / name
        if path.suffix != ".safetensors" or not path.is_file():
            continue
        tensors = sorted((tensor.offset, tensor.offset + tensor.size) for tensor in read_safetensors(path).values())
        begins = [begin for begin, _ in tensors]
        for begin, size in ((begin, size) for place, begin, size in found.ranges if place == name):
            number = bisect_right(begins, begin) - 1
            if number < 0 or begin + size > tensors[number][1]:
                raise InputError(
                    found.path,
                    None,
                    f"reads {size} bytes from byte {begin} of {name} on, and no tensor lies there: the weights were written again after "
                    "the graph. Export it again",
                )


def _model(view: memoryview, found: OnnxFile) -> None:
    for number, value in _fields(view):
        if number == 7 and isinstance(value, memoryview):
            _graph(value, found, 0)
        elif number == 8 and isinstance(value, memoryview):
            entry = _first(value)
            version = entry.get(2, 0)
            found.opsets[_text(entry.get(1))] = version if isinstance(version, int) else 0


def _graph(view: memoryview, found: OnnxFile, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    for number, value in _fields(view):
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            found.nodes += 1
            _node(value, found, depth)
        elif number == 5:
            _tensor(value, found)
        elif number == 11 and not depth:
            found.inputs.append(_text(_first(value).get(1)))
        elif number == 15:
            for part, tensor in _fields(value):
                if part in (1, 2) and isinstance(tensor, memoryview):
                    _tensor(tensor, found)


def _node(view: memoryview, found: OnnxFile, depth: int) -> None:
    kind = domain = ""
    for number, value in _fields(view):
        if not isinstance(value, memoryview):
            continue
        if number == 4:
            kind = _text(value)
        elif number == 7:
            domain = _text(value)
        elif number == 5:
            for part, inner in _fields(value):
                if part in (5, 10) and isinstance(inner, memoryview):
                    _tensor(inner, found)
                elif part in (6, 11) and isinstance(inner, memoryview):
                    _graph(inner, found, depth + 1)
    found.operators.add(kind if domain in ("", "ai.onnx") else f"{domain}.{kind}")


def _tensor(view: memoryview, found: OnnxFile) -> None:
    external = False
    entries: dict[str, str] = {}
    for number, value in _fields(view):
        if number == 2 and isinstance(value, int):
            found.element_types.add(value)
        elif number == 13 and isinstance(value, memoryview):
            entry = _first(value)
            entries[_text(entry.get(1))] = _text(entry.get(2))
        elif number == 14:
            external = value == 1
    if external:
        place = entries.get("location", "")
        found.external.add(place)
        if "offset" in entries and "length" in entries:
            found.ranges.append((place, int(entries["offset"]), int(entries["length"])))


def _first(view: memoryview) -> Mapping[int, int | memoryview]:
    return dict(_fields(view))


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode("utf-8") if isinstance(value, memoryview) else ""


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message. Raises ValueError if it does not end where its length says."""
    place, end = 0, len(view)
    while place < end:
        key, place = _varint(view, place)
        number, kind = key >> 3, key & 7
        if not number:
            raise ValueError("it has a field without a number")
        if kind == VARINT:
            value, place = _varint(view, place)
            yield number, value
        elif kind == BYTES:
            size, place = _varint(view, place)
            if place + size > end:
                raise ValueError("it is cut short")
            yield number, view[place : place + size]
            place += size
        elif kind in (FIXED64, FIXED32):
            place += 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"it has a field of the unknown kind {kind}")


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("it has a number of more than 64 bits")
