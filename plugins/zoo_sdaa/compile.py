"""From an ONNX file to what TecoInference makes engines of."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from zoo.api import Precision, ZooError
from zoo_sdaa import runtime
from zoo_sdaa.engine_shapes import Plan, load_model

logger = logging.getLogger("zoo.sdaa")

TARGET, HOST = "sdaa -libs=tecodnn,tecoblas", "llvm"
TO_HALF = "tvm.relay.frontend.convert_float_to_float16"
NEEDS = ("tvm.relay.frontend.from_onnx", "tvm.relay.build", "tvm.target.Target", "tvm.transform.PassContext")
DISABLED_PASSES = ["SimplifyInference"]
HEARTBEAT = 15.0
"""Seconds between signs of life: compiling takes minutes and prints nothing of its own."""


def build(model: Path, plan: Plan, precision: Precision, pass_path: Path | None) -> Any:
    """Compile ``model`` for ``plan``; what comes back is made into an engine by the runtime's generation. Raises ZooError."""
    passes = load_passes(pass_path)
    half = precision == "fp16" and getattr(passes, "need_convert", True)
    for needed in (*NEEDS, *([TO_HALF] if half else [])):
        runtime.attribute(needed)  # said now, and not after minutes
    with steps() as step:
        step("reading the ONNX file")
        onnx_model = load_model(model)
        step("converting to Relay")
        shapes = {name: list(shape) for name, shape in plan.shapes.items()}
        extra = _given(passes, "specified_op_dtype_dict", "specified_op_dtype")
        ir_module, params = runtime.call("tvm.relay.frontend.from_onnx", onnx_model, shapes, **extra)
        step(f"optimising with {pass_path or 'the default passes'}")
        ir_module = _use_passes(passes, ir_module, pass_path)
        if half:
            step("converting to float16")
            ir_module = _to_half(passes, ir_module)
        step("building the engine, the longest step")
        target = runtime.call("tvm.target.Target", TARGET, host=HOST)
        with runtime.call("tvm.transform.PassContext", opt_level=0, disabled_pass=DISABLED_PASSES):
            return runtime.call("tvm.relay.build", ir_module, target=target, params=params)


def load_passes(path: Path | None) -> ModuleType:
    """The pass module at ``path``, or the vendor's own sequence. Its code is run: it is the user's choice."""
    if path is None:
        from zoo_sdaa import passes

        return passes
    spec = importlib.util.spec_from_file_location("zoo_sdaa_user_passes", path)
    if spec is None or spec.loader is None:
        raise ZooError(f"--pass-path {path}: it takes a Python file with a function use_passes(ir_module)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        raise ZooError(f"--pass-path {path} fails when it is run: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "use_passes", None)):
        raise ZooError(f"--pass-path {path} has no function use_passes(ir_module)")
    return module


def _use_passes(passes: ModuleType, ir_module: Any, path: Path | None) -> Any:
    try:
        made = passes.use_passes(ir_module)
    except ZooError:
        raise
    except Exception as error:  # tvm's classes, or the user's code
        name = f"the pass module {path}" if path else "the default pass sequence"
        raise ZooError(f"{name} failed ({runtime.version()}): {type(error).__name__}: {error}") from error
    if made is None:
        raise ZooError(
            f"use_passes of {path or 'the default pass module'} returned nothing; it returns the module it made"
        )
    return made


def _to_half(passes: ModuleType, ir_module: Any) -> Any:
    return runtime.call(
        TO_HALF,
        ir_module,
        skip_ops=getattr(passes, "skip_ops", None),
        convert_all=getattr(passes, "convert_all", False),
        convert_judge=getattr(passes, "convert_judge", None),
        skip_input_name=getattr(passes, "skip_input_name", None),
        **_given(passes, "normalized", "normalized"),
    )


def _given(module: ModuleType, attribute: str, argument: str) -> dict[str, Any]:
    """``argument`` only where the pass module has ``attribute``: older runtimes do not know it."""
    return {argument: getattr(module, attribute)} if hasattr(module, attribute) else {}


class Steps:
    """Says which step runs and, now and then, for how long it has."""

    def __init__(self) -> None:
        self.started = self._since = time.monotonic()
        self._name = "starting"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="zoo-sdaa-progress", daemon=True)
        self._thread.start()

    def __call__(self, name: str) -> None:
        self._name, self._since = name, time.monotonic()
        logger.info("sdaa: %s (%.0f s so far)", name, self._since - self.started)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            now = time.monotonic()
            logger.info("sdaa: still %s, for %.0f s; %.0f s in all", self._name, now - self._since, now - self.started)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def steps() -> Iterator[Steps]:
    """A progress line for each step of a compilation, and its whole time at the end."""
    made = Steps()
    try:
        yield made
        logger.info("sdaa: compiled in %.1f s", time.monotonic() - made.started)
    finally:
        made.end()


@contextlib.contextmanager
def chatter_to_stderr() -> Iterator[None]:
    """Send what the compiler and its libraries print to stderr, at the level of the file descriptor: stdout is for results."""
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
