"""ONNX models as bytes: the messages of onnx.proto that a graph needs, in protobuf's wire format.

The packages ``onnx`` and ``protobuf`` would have to be installed for nothing else. Field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, the format is https://protobuf.dev/programming-guides/encoding.
Every function returns the encoded message that it is named after.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NewType, TypeAlias

FLOAT, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, BFLOAT16 = 1, 2, 3, 6, 7, 9, 10, 16
"""TensorProto.DataType."""

Subgraph = NewType("Subgraph", bytes)
"""An encoded GraphProto that is a node's attribute: the branch of an If."""
AttributeValue: TypeAlias = "int | float | str | Subgraph | Sequence[int]"


def node(op: str, inputs: Sequence[str], output: str, domain: str, attributes: Mapping[str, AttributeValue]) -> bytes:
    """A NodeProto with one output, which also names it. An empty name among the inputs leaves an optional one out."""
    encoded = b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(3, output) + _bytes(4, op)
    encoded += b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())
    return encoded + (_bytes(7, domain) if domain else b"")


def tensor(name: str, kind: int, shape: Sequence[int], raw: bytes) -> bytes:
    """A TensorProto that holds its numbers, little-endian."""
    return b"".join(_integer(1, size) for size in shape) + _integer(2, kind) + _bytes(8, name) + _bytes(9, raw)


def external_tensor(name: str, kind: int, shape: Sequence[int], location: str, offset: int, length: int) -> bytes:
    """A TensorProto whose numbers are ``length`` bytes from ``offset`` of the file ``location``."""
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    encoded = b"".join(_integer(1, size) for size in shape) + _integer(2, kind) + _bytes(8, name)
    encoded += b"".join(_bytes(13, _bytes(1, key) + _bytes(2, value)) for key, value in entries.items())
    return encoded + _integer(14, 1)


def value(name: str, kind: int, axes: Sequence[int | str]) -> bytes:
    """A ValueInfoProto: a tensor's type and its axes, each with a size or a name."""
    shape = b"".join(_bytes(1, _bytes(2, axis) if isinstance(axis, str) else _integer(1, axis)) for axis in axes)
    return _bytes(1, name) + _bytes(2, _bytes(1, _integer(1, kind) + _bytes(2, shape)))


def graph(
    name: str,
    nodes: Iterable[bytes],
    *,
    tensors: Iterable[bytes] = (),
    inputs: Iterable[bytes] = (),
    outputs: Iterable[bytes] = (),
) -> Subgraph:
    """A GraphProto of encoded parts; ``tensors`` are its initializers."""
    encoded = b"".join(_bytes(1, part) for part in nodes) + _bytes(2, name)
    for field, parts in ((5, tensors), (11, inputs), (12, outputs)):
        encoded += b"".join(_bytes(field, part) for part in parts)
    return Subgraph(encoded)


def model(main: bytes, operator_sets: Mapping[str, int], ir_version: int, producer: str) -> bytes:
    """A ModelProto: what an ``.onnx`` file holds. ``operator_sets`` maps a domain to its version."""
    sets = (_bytes(1, domain) + _integer(2, version) for domain, version in operator_sets.items())
    encoded = _integer(1, ir_version) + _bytes(2, producer) + _bytes(7, main)
    return encoded + b"".join(_bytes(8, entry) for entry in sets)


def _attribute(name: str, given: AttributeValue) -> bytes:
    """An AttributeProto; its field 20 says which kind of value it holds."""
    head = _bytes(1, name)
    if isinstance(given, float):
        return head + _varint(2 << 3 | 5) + struct.pack("<f", given) + _integer(20, 1)
    if isinstance(given, int):
        return head + _integer(3, given) + _integer(20, 2)
    if isinstance(given, str):
        return head + _bytes(4, given) + _integer(20, 3)
    if isinstance(given, bytes):
        return head + _bytes(6, given) + _integer(20, 5)
    return head + b"".join(_integer(8, number) for number in given) + _integer(20, 7)


def _integer(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _bytes(field: int, content: bytes | str) -> bytes:
    """A field of known length: text, or an encoded message."""
    raw = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as 64-bit two's complement."""
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
