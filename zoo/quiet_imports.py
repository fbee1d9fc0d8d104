"""Imports of libraries that read switches from the environment: set for the import alone, and put back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

SWITCHES: Mapping[str, str] = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime's newer wheels report their use to a host when they are imported, unless this is set before; its API comes too late."""

_lock = Lock()


@contextlib.contextmanager
def switches() -> Iterator[None]:
    """Set ``SWITCHES`` for the block, and leave the environment as it was."""
    with _lock:
        before = {name: os.environ.get(name) for name in SWITCHES}
        os.environ.update(SWITCHES)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``, which then reports its use to nobody. Raises ImportError."""
    with switches():
        import onnxruntime

    return onnxruntime
