"""Batches on a device under test, and the scores that they must give. ``DeviceContract`` is made of these."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import numpy as np

from zoo.errors import ZooError
from zoo.quiet_imports import import_onnxruntime
from zoo.scoring.batching import batches
from zoo.testing.base import told
from zoo.types import Artifact, Device, Encodings, Precision, Scores, Session, Tensors

LENGTHS = (3, 17, 64, 5, 40, 12, 64, 29, 8, 33, 21)
"""Pairs of the tests: 11, so that no usual batch size divides them, and up to the length limit."""


def artifact_of(model: Path) -> Artifact:
    """What the device opens: a model file, or the folder of a checkpoint."""
    return Artifact(model=model, precision="fp32", origin="contract test", is_checkpoint=model.is_dir())


def default_precision(device: Device) -> Precision:
    """The precision that a device takes by itself: the first it lists."""
    return next(iter(device.precisions))


def same(scores: Scores, expected: Scores, tolerance: float, what: str) -> None:
    """Raises AssertionError naming the worst row if scores differ by more than ``tolerance``."""
    differences = np.abs(scores - expected)
    worst = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
    assert differences[worst] <= tolerance, told(
        f"{what}: {expected[worst]:.5f} within {tolerance:g} for row {worst} of {LENGTHS[worst % len(LENGTHS)]} tokens",
        f"{scores[worst]:.5f}",
    )


def refuses_work(session: Session, inputs: Tensors) -> None:
    """Raises AssertionError if a session that is closed still computes."""
    try:
        outputs = session.submit(inputs).result()
    except (ZooError, RuntimeError):
        return
    raise AssertionError(told("ZooError or RuntimeError from a closed session", f"outputs {list(outputs)}"))


Futures = list[tuple["tuple[int, ...]", "Future[Tensors]"]]


def submit(session: Session, encodings: Encodings, batch_size: int) -> Futures:
    """Start all batches of ``encodings``; each future with the rows that count."""
    made = batches(encodings, session.shape_rule, batch_size, session.input_names)
    return [(tuple(batch.indices), session.submit(batch.inputs)) for batch in made]


def collected(futures: Futures) -> Scores:
    """The scores, in the order of the encodings."""
    scores = np.full(sum(len(indices) for indices, _ in futures), np.nan, dtype=np.float32)
    for indices, future in futures:
        logits = np.asarray(future.result()["logits"]).reshape(-1)[: len(indices)]
        scores[list(indices)[: len(logits)]] = logits
    return scores


def run(session: Session, encodings: Encodings, batch_size: int = 4) -> Scores:
    """The scores of ``encodings`` through ``session``."""
    return collected(submit(session, encodings, batch_size))


def reference(model: Path, encodings: Encodings) -> Scores:
    """ONNX Runtime in float32, one unpadded row at a time."""
    onnxruntime = import_onnxruntime()

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    scores = []
    for row in encodings.rows:
        ids = np.array([row.features["input_ids"]], dtype=np.int64)
        scores.append(session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0, 0])
    return np.array(scores, dtype=np.float32)
