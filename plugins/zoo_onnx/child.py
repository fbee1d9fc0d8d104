"""``python -m zoo_onnx.child JOB RESULT PARENT``: do one step for the process PARENT, then say in RESULT what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo_onnx.process import Job

PR_SET_PDEATHSIG = 1


def main(job_text: str, result_path: str, parent: str) -> None:
    die_with(int(parent))
    fields: dict[str, Any] = json.loads(job_text)
    for name in ("model", "checkpoint", "target", "reference"):
        fields[name] = Path(fields[name]) if fields[name] else None
    job = Job(**fields)
    started = time.monotonic()
    try:
        answer = {**_work(job.kind)(job), "seconds": round(time.monotonic() - started, 3), "peak_memory": peak_memory()}
    except Exception as error:  # whatever a library raises is told to the parent, which decides
        answer = {"error": str(error), "class": type(error).__name__, "errno": getattr(error, "errno", None)}
        import traceback

        traceback.print_exc()
    Path(result_path).write_text(json.dumps(answer), encoding="utf-8")


def _work(kind: str) -> Callable[[Job], dict[str, Any]]:
    if kind == "export":
        from zoo_optimum.torch_export import export

        return export
    if kind in ("prove", "reference"):
        from zoo_onnx import proof

        return {"prove": proof.prove, "reference": proof.reference}[kind]
    from zoo_onnx import graph_steps

    return graph_steps.STEPS[kind]


def die_with(parent: int) -> None:
    """Linux ends this process when its parent is gone, so that a killed run leaves nothing working in the dark."""
    if sys.platform.startswith("linux"):
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the line above
            os._exit(1)


def peak_memory() -> int:
    """Bytes this process held at most; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
