"""Keys that open the server: where they come from, and how a request's is compared."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.errors import InputError

VARIABLE = "ZOO_API_KEY"


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys in ``file``, one a line, and in the environment variable ZOO_API_KEY. Raises InputError."""
    keys = [environment.get(VARIABLE, "").strip()]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(file, None, f"cannot be read as keys: {error}") from error
        keys += [line.strip() for line in lines if not line.lstrip().startswith("#")]
        if not any(keys[1:]):
            raise InputError(file, None, "holds no key; write one a line")
    return tuple(key for key in keys if key)


class KeyCheck:
    """Compares keys in a time that depends on neither their content nor their length. Without keys everybody may pass."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def passes(self, authorization: str) -> bool:
        """Whether an ``Authorization`` header opens the server: ``Bearer KEY``, or the key alone, as some clients send it."""
        if not self._digests:
            return True
        scheme, _, rest = authorization.partition(" ")
        given = rest.strip() if scheme.casefold() == "bearer" else authorization.strip()
        found = [hmac.compare_digest(_digest(given), digest) for digest in self._digests]
        return any(found)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
