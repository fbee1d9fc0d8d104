"""Imports of libraries that read switches from the environment: set for the import alone, and put back."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any

from zoo.errors import interruption

SWITCHES: Mapping[str, str] = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime's newer wheels report their use to a host when they are imported, unless this is set before; its API comes too late."""

OPENVINO_TELEMETRY = "openvino_telemetry"
_lock = Lock()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block, and put back what they were. Other threads see them too."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """An ImportError that an interrupt has caused is the interrupt: the library is there."""
    try:
        yield
    except ImportError as error:
        if (cause := interruption(error)) is not None:
            raise cause from error
        raise


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``, which then reports its use to nobody. Raises ImportError."""
    with _lock, environment(SWITCHES), _interruptible():
        import onnxruntime

    return onnxruntime


def import_openvino() -> Any:
    """The module ``openvino``, which then reports its use to nobody. Raises ImportError.

    Its package ``openvino.tools.ovc``, which it imports, sends an event through ``openvino_telemetry`` if that can be imported, and has
    a stub in its place if not.
    """
    with _lock:
        before = sys.modules.get(OPENVINO_TELEMETRY)
        if before is None:
            sys.modules[OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # the import system's way to refuse a module
        try:
            with _interruptible():
                import openvino
        finally:
            if before is None:
                sys.modules.pop(OPENVINO_TELEMETRY, None)
    return openvino
