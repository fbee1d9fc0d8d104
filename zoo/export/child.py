"""``python -m zoo.export.child JOB RESULT PARENT``: do one job for the process PARENT, then write its result to RESULT."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from zoo.errors import NotInstalledError, ZooError
from zoo.export.process import Job
from zoo.registry.participants import load_object

PR_SET_PDEATHSIG = 1


def main(job_text: str, result_path: str, parent: str) -> None:
    die_with(int(parent))
    fields: dict[str, Any] = json.loads(job_text)
    for name in ("model", "checkpoint", "target", "reference", "weights_folder"):
        fields[name] = Path(fields[name]) if fields[name] else None
    job = Job(**fields)
    started = time.monotonic()
    try:
        answer = {**_work(job), "seconds": round(time.monotonic() - started, 3), "peak_memory": peak_memory()}
    except Exception as error:  # whatever a library raises is reported to the parent, which decides
        answer = {"error": str(error), "kind": _kind(error), "errno": getattr(error, "errno", None)}
        traceback.print_exc()
    Path(result_path).write_text(json.dumps(answer), encoding="utf-8")


def _kind(error: Exception) -> str:
    """The closest of the two classes that the parent raises again, else the error's own."""
    return next(
        (kind.__name__ for kind in (NotInstalledError, ZooError) if isinstance(error, kind)), type(error).__name__
    )


def _work(job: Job) -> dict[str, Any]:
    function = load_object(job.function, f"the step '{job.name}'")
    if job.kind == "prove":
        from zoo.export import proof

        return proof.prove(job, function)
    return function(job) or {}


def die_with(parent: int) -> None:
    """Linux ends this process when its parent is gone, so that a killed run leaves nothing running."""
    if sys.platform.startswith("linux"):
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the line above
            os._exit(1)


def peak_memory() -> int:
    """Bytes this process held at most; 0 if the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
