"""JSON as it must be for two readers to agree on it: no key twice in an object, nothing deeper or longer than can be held."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.files import reason

LARGEST = 512 << 20
"""Bytes of a file that is held in memory whole: a tokenizer of a million tokens takes a tenth."""
HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""What spells half of a surrogate pair, or a whole one."""


class RepeatedKeyError(ValueError):
    """A key that is there twice in one JSON object: readers differ in which of the two they believe."""


def keys_once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members, for ``object_pairs_hook`` of ``json.loads``. Raises RepeatedKeyError."""
    made = dict(items)
    if len(made) < len(items):
        seen: set[str] = set()
        twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RepeatedKeyError(f"the key '{twice}' is there twice in one object. Remove one of the two")
    return made


def parse(text: str | bytes) -> Any:
    """The JSON value that ``text`` (bytes: UTF-8) spells. Raises ValueError, for deep nesting and half of a character too."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text, object_pairs_hook=keys_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if HALF.search(text) is not None:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, RecursionError) as error:
            raise ValueError("it has half of a surrogate pair, which is no character") from error
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises InputError for whatever else it may be."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(path, None, "is not a JSON object")
    return content


def read_json(path: Path) -> Any:
    """The JSON value that a file holds. Raises InputError if it holds none."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(path, None, f"is larger than {LARGEST >> 20} MB")
        return parse(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {reason(error)}") from error
    except RepeatedKeyError as error:
        raise InputError(path, None, str(error)) from error
    except UnicodeDecodeError as error:
        raise InputError(path, None, f"is not UTF-8 (byte {error.start + 1})") from error
    except ValueError as error:
        raise InputError(path, None, f"is not JSON: {error}") from error
    except MemoryError as error:
        raise InputError(path, None, "does not fit into the memory that this process may use") from error
