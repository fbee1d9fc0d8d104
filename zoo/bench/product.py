"""A matrix product in float32, which stands for what the processors can do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from zoo.cpus import usable_threads
from zoo.onnx_runtime import onnxruntime_settings, open_onnxruntime

SIZE = 1024
"""Rows and columns of both matrices."""


def matrix_products() -> list[Callable[[], Any]]:
    """The product by numpy and by ONNX Runtime, if that is here: a build of numpy may not know the processor."""
    import numpy as np

    ones = np.ones((SIZE, SIZE), dtype=np.float32)
    found: list[Callable[[], Any]] = [lambda: ones @ ones]
    try:
        session = open_onnxruntime(_graph(), onnxruntime_settings(usable_threads()))
    except ImportError:
        return found
    return [*found, lambda: session.run(None, {"a": ones, "b": ones})]


def gflops(products: list[Callable[[], Any]]) -> float:
    """Billions of operations a second of the fastest of three runs of each."""
    fastest = float("inf")
    for product in products:
        for _ in range(3):
            before = time.perf_counter()
            product()
            fastest = min(fastest, time.perf_counter() - before)
    return 2 * SIZE**3 / fastest / 1e9


def _graph() -> bytes:
    """An ONNX file with one MatMul of ``a`` and ``b``, of any shape; the numbers are those of fields in onnx.proto."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    def matrix(name: bytes) -> bytes:
        return field(1, name) + field(2, field(1, b"\x08\x01"))  # a tensor of element type 1, float32

    node = field(1, b"a") + field(1, b"b") + field(2, b"c") + field(4, b"MatMul")
    graph = field(1, node) + field(2, b"product") + field(11, matrix(b"a")) + field(11, matrix(b"b"))
    version, operators = b"\x08\x08", b"\x10\x11"  # IR version 8, operators of version 17
    return version + field(7, graph + field(12, matrix(b"c"))) + field(8, operators)
