"""From an ONNX file to what TecoInference makes engines of."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.api import NotInstalledError, Precision, ZooError
from zoo_sdaa import runtime
from zoo_sdaa.engine_shapes import EngineShapes
from zoo_sdaa.onnx_model import load_model
from zoo_sdaa.pass_module import PassModule
from zoo_sdaa.passes import infer_types

logger = logging.getLogger("zoo.sdaa")

TARGET, HOST = "sdaa -libs=tecodnn,tecoblas", "llvm"
TO_HALF = "tvm.relay.frontend.convert_float_to_float16"
NEEDS = ("tvm.relay.frontend.from_onnx", "tvm.relay.build", "tvm.target.Target", "tvm.transform.PassContext")
DISABLED_PASSES = ["SimplifyInference"]
INTERVAL = 15.0
"""Seconds between signs of life: compiling takes minutes and prints nothing of its own."""


def build(model: Path, shapes: EngineShapes, precision: Precision, passes: PassModule) -> Any:
    """Compile ``model`` for ``shapes``; the runtime's adapter makes an engine of what comes back. Raises ZooError."""
    half = precision == "fp16" and passes.converts
    if not runtime.found("tvm"):
        raise NotInstalledError(
            "compiling for the device 'sdaa' needs the Python module 'tvm', which comes with Tecorigin's container images only (conda "
            f"environment {runtime.ENVIRONMENT}). Generation 2 runs a compiled engine without it: give its .tecoengine as the model file"
        )
    for needed in (*NEEDS, *([TO_HALF] if half else [])):
        runtime.attribute(needed)  # what is missing is reported now, and not after minutes
    with compilation() as step:
        step("reading the ONNX file")
        onnx_model = load_model(model)
        step("converting to Relay")
        inputs = {name: list(shape) for name, shape in shapes.inputs.items()}
        ir_module, params = runtime.call("tvm.relay.frontend.from_onnx", onnx_model, inputs, **passes.import_arguments)
        step(f"optimising with {passes.name}")
        ir_module = passes.use_passes(ir_module)
        if half:
            step("converting to float16")
            ir_module = runtime.call(TO_HALF, ir_module, **passes.conversion_arguments)
        step("building the engine, the longest step")
        try:
            return _build(ir_module, params)
        except ZooError as error:
            if not half:
                raise
            # Some versions of TecoInference need this after the conversion; for those that do not, Tecorigin's programs leave it out.
            logger.warning("the build failed and is tried again with types that are inferred anew: %s", error)
            return _build(infer_types(ir_module), params)


def _build(ir_module: Any, params: Any) -> Any:
    target = runtime.call("tvm.target.Target", TARGET, host=HOST)
    with runtime.call("tvm.transform.PassContext", opt_level=0, disabled_pass=DISABLED_PASSES):
        return runtime.call("tvm.relay.build", ir_module, target=target, params=params)


class Compilation:
    """Logs which step of a compilation runs and, now and then, for how long it has."""

    def __init__(self) -> None:
        self.started = self._since = time.monotonic()
        self._name = "starting"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report, name="zoo-sdaa-progress", daemon=True)
        self._thread.start()

    def __call__(self, name: str) -> None:
        self._name, self._since = name, time.monotonic()
        logger.info("sdaa: %s (%.0f s so far)", name, self._since - self.started)

    def _report(self) -> None:
        while not self._stop.wait(INTERVAL):
            now = time.monotonic()
            logger.info("sdaa: still %s, for %.0f s; %.0f s in all", self._name, now - self._since, now - self.started)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def compilation() -> Iterator[Compilation]:
    """A line for each step of a compilation, and its whole time at the end."""
    made = Compilation()
    try:
        yield made
        logger.info("sdaa: compiled in %.1f s", time.monotonic() - made.started)
    finally:
        made.end()


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what the runtime and its libraries print to stderr, at the level of the file descriptor: stdout is for results."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # started without a stdout
        yield
        return
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
