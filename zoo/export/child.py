"""Doing jobs: ``python -m zoo.export.child JOBS RESULTS PARENT`` does them for the process PARENT and writes their results to RESULTS.

Jobs that take less time than a process are done in the process that asks, by ``run_here``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.errors import NotInstalledError, ZooError
from zoo.export.process import Job, result_of
from zoo.registry.participants import load_object

logger = logging.getLogger("zoo.export")

PR_SET_PDEATHSIG = 1


def main(jobs_text: str, results_path: str, parent: str) -> None:
    die_with(int(parent))
    answers: list[dict[str, Any]] = []
    for text in json.loads(jobs_text):
        result, trace = answer(behind(Job.from_json(text), answers))
        answers.append(result)
        sys.stderr.write(trace)
        if trace:
            break
    Path(results_path).write_text(json.dumps(answers), encoding="utf-8")


def run_here(job: Job) -> dict[str, Any]:
    """The job's result, computed in this process. Raises as ``zoo.export.process.run`` does."""
    job.target.mkdir()
    result, trace = answer(job)
    logger.debug("%s:\n%s", job.name, trace)
    return result_of(result, job)


def behind(job: Job, answers: Sequence[Mapping[str, Any]]) -> Job:
    """The job with what the first one before it, which made the file, says of where its weights lie."""
    folder = answers[0].get("weights_folder") if answers else None
    return replace(job, weights_folder=Path(folder)) if folder else job


def answer(job: Job) -> tuple[dict[str, Any], str]:
    """The job's result with its seconds and bytes of memory; or what it raised, for the process that asked to judge, and the traceback."""
    started = time.monotonic()
    try:
        return {**_work(job), "seconds": round(time.monotonic() - started, 3), "peak_memory": peak_memory()}, ""
    except Exception as error:  # whatever a library raises
        found = {"error": str(error), "kind": _kind(error), "errno": getattr(error, "errno", None)}
        return found, traceback.format_exc()


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
