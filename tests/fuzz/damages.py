"""Random damage to files: bytes, lines, values of JSON, and what a file is. The same random numbers give the same damage."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from random import Random
from typing import Any

TOKENS = [
    b"\x00", b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\t", b"\r", b"\n", b"\r\n", b"", b"-1", b"1_0", b"null", b"true",
    b"{}", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"NaN", b"-Infinity", b"1e999", b"9" * 5000,
    b"0" * 5000, b"[" * 50_000, b'{"a":' * 5_000, b"../../etc/passwd", b"/etc/passwd", "\u2028\u0085\u202e".encode(), b"x" * 100_000,
    b"\xf0\x9f\xa6\x8a", "１２８".encode(),
]  # fmt: skip
"""What parsers trip over, put anywhere in a file."""
NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
STRING = re.compile(rb'"[^"\n]{0,200}"')


def odd_value(random: Random) -> Any:
    """A JSON value that hardly any key is meant to have."""
    nested: Any = 1
    for _ in range(random.choice([3, 200, 900])):
        nested = [nested] if random.random() < 0.5 else {"a": nested}
    return random.choice([
        None, True, False, -1, 0, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**70), 10**400, 1e308, -0.5, 1e-320, "", " ", "a" * 20_000,
        "\ud800", "\x00", "../x", "/etc/passwd", "１２８", "1_0", "NaN", [], {}, [[]], [None], {"": None}, nested,
    ])  # fmt: skip


def damage(folder: Path, random: Random) -> str:
    """Damage one file in ``folder`` or below; tells which, and how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = random.choice(files)
    if random.random() < 0.04:
        how = _other_kind(path, random)
    else:
        raw = path.read_bytes()
        packed = path.suffix == ".gz" and random.random() < 0.7
        content = gzip.decompress(raw) if packed else raw
        how = ""
        for _ in range(random.choice([1, 1, 1, 2, 4])):
            content, name = _damaged(content, random)
            how += f" {name}"
        path.write_bytes(gzip.compress(content, 1) if packed else content)
    return f"{path.relative_to(folder)}:{how}"


def _other_kind(path: Path, random: Random) -> str:
    how = random.choice(["gone", "folder", "empty", "broken link", "circular link"])
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "empty":
        path.touch()
    elif how == "broken link":
        path.symlink_to("nowhere")
    elif how == "circular link":
        path.symlink_to(path.name)
    return how


def _damaged(content: bytes, random: Random) -> tuple[bytes, str]:
    if random.random() < 0.45:
        changed = _json(content, random)
        if changed is not None:
            return changed, "json"
    how = random.choice(
        ["flip", "noise", "cut", "drop", "again", "token", "token", "number", "string", "lines", "length"]
    )
    place, other = sorted(random.randrange(len(content) + 1) for _ in range(2))
    other = min(other, place + random.choice([1, 8, 200, 100_000]))
    if how == "flip" and content:
        place = min(place, len(content) - 1)
        return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :], how
    if how == "noise":
        return content[:place] + random.randbytes(random.choice([1, 4, 64])) + content[other:], how
    if how == "cut":
        return content[:place], how
    if how == "drop":
        return content[:place] + content[other:], how
    if how == "again":
        return content[:other] + content[place:], how
    if how in ("number", "string"):
        found = list((NUMBER if how == "number" else STRING).finditer(content[: 1 << 20]))
        if found:
            span = random.choice(found)
            new = random.choice([random.choice(TOKENS), json.dumps(odd_value(random)).encode()])
            return content[: span.start()] + new + content[span.end() :], how
    if how == "lines":
        lines = content.splitlines(keepends=True)
        random.shuffle(lines)
        return b"".join(lines[: random.randrange(len(lines) + 1)]), how
    if how == "length":  # the eight bytes that begin a safetensors file
        return random.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(content)]).to_bytes(8, "little") + content[8:], how
    return content[:place] + random.choice(TOKENS) + content[place:], "token"


def _json(content: bytes, random: Random) -> bytes | None:
    """The file, or one of its lines, or the header of a safetensors file, with one value changed; None if it is none of that."""
    begin, end = 0, len(content)
    if content[8:9] == b"{":
        begin, end = 8, min(8 + int.from_bytes(content[:8], "little"), len(content))
    value = _parsed(content[begin:end])
    if value is None:
        lines = content.splitlines(keepends=True)
        if not lines:
            return None
        number = random.randrange(len(lines))
        begin = sum(map(len, lines[:number]))
        end = begin + len(lines[number])
        value = _parsed(content[begin:end])
    if not isinstance(value, (dict, list)) or not value:
        return None
    text = json.dumps(_changed(value, random), ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if begin == 8:
        return len(text).to_bytes(8, "little") + text + content[end:]
    return content[:begin] + text + (b"\n" if content[begin:end].endswith(b"\n") else b"") + content[end:]


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _changed(value: Any, random: Random) -> Any:
    """``value`` with something inside replaced, left out, or called otherwise."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = random.choice(keys)
    inner = value[key]
    if isinstance(inner, (dict, list)) and inner and random.random() < 0.7:
        made: Any = _changed(inner, random)
    elif random.random() < 0.2:
        return (
            {k: v for k, v in value.items() if k != key}
            if isinstance(value, dict)
            else [*value[:key], *value[key + 1 :]]
        )
    else:
        made = odd_value(random)
    if isinstance(value, list):
        return [*value[:key], made, *value[key + 1 :]]
    renamed = random.choice(["", "\x00", "../x", "a" * 1000, key.upper()]) if random.random() < 0.1 else key
    return {renamed if k == key else k: made if k == key else v for k, v in value.items()}


def copied(source: Path, target: Path) -> None:
    """A copy of a folder that damage does not reach the source through."""
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    os.utime(target)
