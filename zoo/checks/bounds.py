"""Whether a device computes what it should, by Tecorigin's own acceptance for a newly adapted model.

Its rules (Tecorigin's model zoo): the metric on the device is within 0.1 % of ONNX Runtime's on the CPU, ONNX Runtime's within 1 % of
PyTorch's, and the error of outputs is ``sqrt(sum((out - ref)^2) / sum(ref^2))``. Tecorigin gives no bound for that error; ours are below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ScoreError
from zoo.registry.card import ModelCard
from zoo.types import Encodings, Head, Precision

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

DEVICE_METRIC_BOUND = 0.001
"""Relative difference of a metric, device against ONNX Runtime on the CPU."""

TORCH_METRIC_BOUND = 0.01
"""Relative difference of a metric, ONNX Runtime on the CPU against PyTorch."""

OUTPUT_BOUNDS: Mapping[Precision, float] = {
    "fp32": 1e-4,  # an export and two runtimes differ by 2e-5 of scores whose own deviation is 2.6
    "fp16": 0.01,  # scores move by up to 0.024 where their deviation is 2.6
    "bf16": 0.1,  # scores move by up to 0.24 where their deviation is 2.6
    "int8": 0.2,  # up to 1.5 on random weights, which are harsh on quantisation
}
"""Largest output error, by the device's precision. Behind each: what was measured at full size, 568 M parameters."""

DEMO = "panda-demo"
"""A reference of a card whose data set has this name is the score of a demo line: its metric is ``score@1`` or ``score@2``."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison: ``deviation`` is inside ``bound`` or it is not."""

    name: str
    measured: float
    reference: float
    deviation: float
    bound: float
    source: str = ""

    @property
    def passed(self) -> bool:
        return self.deviation <= self.bound  # False for NaN


def output_error(outputs: ArrayLike, reference: ArrayLike) -> float:
    """``sqrt(sum((out - ref)^2) / sum(ref^2))`` in float64. Raises ScoreError on shapes that differ and on NaN or infinity."""
    import numpy as np

    out, ref = np.asarray(outputs, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if out.shape != ref.shape:
        raise ScoreError(f"outputs of shape {out.shape} cannot be compared with a reference of shape {ref.shape}")
    if not (np.isfinite(out).all() and np.isfinite(ref).all()):
        raise ScoreError("outputs that are not finite cannot be compared")
    error, scale = float(((out - ref) ** 2).sum()), float((ref**2).sum())
    if scale == 0.0:
        return 0.0 if error == 0.0 else math.inf
    return math.sqrt(error / scale)


def relative_difference(measured: float, reference: float) -> float:
    """``|measured - reference| / |reference|``; infinite where only the reference is 0."""
    if reference == 0.0:
        return 0.0 if measured == 0.0 else math.inf
    return abs(measured - reference) / abs(reference)


def output_check(name: str, outputs: Sequence[float], reference: Sequence[float], precision: Precision) -> Check:
    """The output error against its bound. ``measured`` and ``reference`` are the scores that differ most."""
    error = output_error(outputs, reference)
    worst = max(range(len(outputs)), key=lambda i: abs(outputs[i] - reference[i]), default=None)
    return Check(
        name=name,
        measured=math.nan if worst is None else outputs[worst],
        reference=math.nan if worst is None else reference[worst],
        deviation=error,
        bound=OUTPUT_BOUNDS[precision],
        source="output error; the scores are those that differ most",
    )


def metric_checks(
    name: str, measured: Mapping[str, float], reference: Mapping[str, float], bound: float, metrics: Iterable[str]
) -> list[Check]:
    """Each of ``metrics`` against the reference's, as a relative difference."""
    return [
        Check(
            name=f"{name}, {metric}",
            measured=measured[metric],
            reference=reference[metric],
            deviation=relative_difference(measured[metric], reference[metric]),
            bound=bound,
            source="relative difference",
        )
        for metric in metrics
    ]


def card_checks(card: ModelCard, dataset: str, measured: Mapping[str, float]) -> list[Check]:
    """The card's own values for ``dataset``, each inside the tolerance it states."""
    return [
        Check(
            name=f"the model card's {entry.dataset}, {entry.metric}",
            measured=measured[entry.metric],
            reference=entry.value,
            deviation=abs(measured[entry.metric] - entry.value),
            bound=entry.tolerance,
            source=f"absolute difference; {entry.source}",
        )
        for entry in card.reference
        if entry.dataset == dataset and entry.metric in measured
    ]


def golden_checks(card: ModelCard, scores: Sequence[float]) -> list[Check]:
    """The scores of the card's golden pairs, in their order, each inside the tolerance it states."""
    return [
        Check(
            name=f"the model card's pair '{golden.query[:40]}', '{golden.passage[:40]}'",
            measured=score,
            reference=golden.logit,
            deviation=abs(score - golden.logit),
            bound=golden.tolerance,
            source=f"absolute difference; {golden.source}",
        )
        for golden, score in zip(card.golden, scores, strict=True)
    ]


def torch_scores(folder: Path, encodings: Encodings, head: Head) -> list[float]:
    """PyTorch's own logits in float32 of the checkpoint in ``folder``, one pair at a time. Needs torch and transformers.

    A ``head`` of tokens reads them in a language model's logits at the last token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    positive, negative = head.get("positive"), head.get("negative")
    kind: Any = AutoModelForSequenceClassification if positive is None else AutoModelForCausalLM
    model = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True).float().eval()
    scores = []
    with torch.inference_mode():
        for row in encodings.rows:
            features = {name: torch.tensor([list(ids)]) for name, ids in row.features.items()}
            mask = torch.ones_like(features["input_ids"])
            logits = model(**features, attention_mask=mask).logits[0]
            if positive is None:
                scores.append(float(logits[0]))
            else:
                scores.append(float(logits[-1, positive] - (0 if negative is None else logits[-1, negative])))
    return scores
