"""Starting a step in a process of its own, watching it, and reading its result."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from zoo.errors import NotInstalledError, ZooError
from zoo.quiet_imports import SWITCHES
from zoo.wording import ending

logger = logging.getLogger("zoo.export")

SIGN_OF_LIFE = 10.0
"""Seconds between lines while a step runs."""

NEARLY_NOTHING = 4 << 20
"""Free bytes below which a step that failed is taken to have failed for want of room."""


class StepError(ZooError):
    """A step ended without a result: killed, out of memory, out of time, or broken inside a library."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the child process is to do: call ``function`` (``package.module:function``) with this job.

    ``target`` is the folder it makes and ``model`` the file it starts from. ``reference`` is the file of the probe pairs and the logits
    that are expected for them (see ``zoo.export.probes``).
    """

    name: str
    """The step, for messages."""
    target: Path
    reference: Path
    kind: Literal["run", "reference", "prove"] = "run"
    """Whether the step makes its file, records what its source gives, or compares its file with that."""
    function: str = ""
    model: Path | None = None
    checkpoint: Path | None = None
    """Folder of the checkpoint; None if a recipe starts from a file."""
    task: str = "text-classification"
    """The architecture's ``task``: the head to produce, in optimum's words."""
    head: dict[str, Any] = field(default_factory=dict)
    """What the architecture's options decide of the graph; see ``zoo.api.Head``."""
    options: dict[str, str | int | bool] = field(default_factory=dict)
    """Those of ``ExportRequest.options``."""
    covered: list[str] = field(default_factory=list)
    """Steps after the export that the exporter does itself."""
    following: list[str] = field(default_factory=list)
    """Steps that work on this one's file; if there are none, the file may borrow its weights from where they lie."""
    weights_folder: Path | None = None
    """Where the external data of ``model`` lies, if not beside it."""

    @property
    def output(self) -> Path:
        """The model file the step writes."""
        return self.target / str(self.options.get("file_name", "model.onnx"))

    def to_json(self) -> str:
        """What the child process is given on its command line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What ``to_json`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        for name in ("model", "checkpoint", "target", "reference", "weights_folder"):
            fields[name] = Path(fields[name]) if fields[name] else None
        return cls(**fields)


def run(job: Job) -> dict[str, Any]:
    """The job's result, from a process of its own. Raises StepError, or the ZooError that the step raised there."""
    return run_all([job])[0]


def run_all(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The results of jobs of one step, done by one process one after another. Raises as ``run`` does."""
    for job in jobs:
        job.target.mkdir()
    answers = _answers_of_child(jobs)
    return [result_of(answer, job) for answer, job in zip(answers, jobs, strict=False)]


def result_of(answer: dict[str, Any], job: Job) -> dict[str, Any]:
    """What ``zoo.export.child.answer`` gave, if that is a result. Raises as ``run`` does if it is an error."""
    if "error" in answer:
        _raise(answer, job)
    return answer


def _answers_of_child(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """One answer a job, or fewer of which the last is an error."""
    job = jobs[0]
    log_path = job.target.with_suffix(".log")
    results_path = job.target.with_suffix(".json")
    texts = json.dumps([job.to_json() for job in jobs])
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "zoo.export.child", texts, str(results_path), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=job.target,  # '-m' looks for modules in the working folder first; this one is empty
            env=_environment(job.target),
        )
        try:
            code = _wait(process, job)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    log_text = log_path.read_text(errors="replace")
    logger.debug("%s:\n%s", job.name, log_text)
    try:
        answers: list[dict[str, Any]] = json.loads(results_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        _refuse_full_disk(job)
        raise StepError(f"'{job.name}' {ending(code)}, without a result{_last_line(log_text)}") from None
    return answers


def _wait(process: subprocess.Popen[bytes], job: Job) -> int:
    started = time.monotonic()
    timeout = float(job.options.get("timeout", 0)) if job.kind == "run" else 0.0
    while True:
        try:
            return process.wait(SIGN_OF_LIFE if not timeout else min(SIGN_OF_LIFE, timeout))
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - started
            if timeout and elapsed >= timeout:
                raise StepError(f"'{job.name}' took more than {timeout:g} s and was stopped") from None
            logger.info("  %s: %.0f s so far%s", job.name, elapsed, _memory_of(process.pid))


def _memory_of(pid: int) -> str:
    """What the process holds now, where the system tells."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        line = next(line for line in lines if line.startswith("VmRSS:"))
        return f", {int(line.split()[1]) / 1e6:.1f} GB of memory"
    return ""


def _environment(scratch: Path) -> dict[str, str]:
    return {
        **os.environ,
        **SWITCHES,
        # Temporary files of libraries go where room was found for them, and are deleted with the folder.
        "TMPDIR": str(scratch.parent),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # a step may come from where this process found it
    }


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return f" (it last said: {lines[-1].strip()[:300]})" if lines else ""


def _raise(answer: dict[str, Any], job: Job) -> None:
    if answer.get("errno") in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _refuse_full_disk(job)
    told = {kind.__name__: kind for kind in (NotInstalledError, ZooError)}.get(answer["kind"])
    if told is None:
        raise StepError(f"'{job.name}' failed: {': '.join(filter(None, [answer['kind'], answer['error']]))}")
    raise told(answer["error"])


def _refuse_full_disk(job: Job) -> None:
    """A step that fails on a full disk says so in many ways, or not at all: libraries report a short write as a fault of their own."""
    if shutil.disk_usage(job.target).free < NEARLY_NOTHING:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
