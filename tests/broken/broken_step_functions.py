"""What the steps of ``broken_steps`` run, faults included. A model file is an array here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.api import Job, probes


def outputs(model: Path, inputs: Any) -> Any:
    weights = np.frombuffer(model.read_bytes(), dtype=np.float64)
    return [{"logits": batch["input_ids"] @ weights[:, None]} for batch in inputs]


def run(job: Job) -> dict[str, str]:
    job.output.write_bytes(job.model.read_bytes())  # type: ignore[union-attr]
    return {"note": "copied"}


def reference(job: Job) -> None:
    inputs = [{"input_ids": np.eye(4)}]
    probes.save(job.reference, inputs, outputs(job.model, inputs))  # type: ignore[arg-type]


def evaluate(job: Job, inputs: Any) -> Any:
    return outputs(job.model, inputs)  # type: ignore[arg-type]


def writes_nothing(job: Job) -> None:
    pass


def raises(job: Job) -> None:
    raise KeyError("layers")


def computes_something_else(job: Job) -> None:
    job.output.write_bytes((np.frombuffer(job.model.read_bytes()) * 1.01).tobytes())  # type: ignore[union-attr]


def writes_beside_its_source(job: Job) -> None:
    run(job)
    job.model.with_name("cache").write_text("x")  # type: ignore[union-attr]


def changes_its_source(job: Job) -> None:
    run(job)
    job.model.write_bytes(job.model.read_bytes() + bytes(8))  # type: ignore[union-attr]


def blind(job: Job, inputs: Any) -> Any:
    return probes.load(job.reference)[1]
