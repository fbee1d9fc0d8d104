"""Comparing what a step's file gives with what its source gave, on the same probe pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.errors import PluginError
from zoo.export import probes
from zoo.export.probes import Arrays
from zoo.export.process import Job
from zoo.statistics import spearman

FLOOR = 0.1
"""Scores smaller than this everywhere are compared absolutely: a model's own rounding does not shrink with its scores."""

Evaluate = Callable[[Job, Sequence[Arrays]], Sequence[Mapping[str, Any]]]
"""Gives the outputs of ``job.model`` for each batch of inputs, by name."""


def prove(job: Job, evaluate: Evaluate) -> dict[str, Any]:
    """The largest difference from the reference, absolute and over the reference's largest value, and the rank correlation."""
    inputs, expected = probes.load(job.reference)
    given = list(evaluate(job, inputs))
    if len(given) != len(inputs):
        raise PluginError(f"the evaluation of '{job.name}' gave {len(given)} batches of outputs for {len(inputs)}")
    pairs: list[tuple[Any, Any]] = []
    for outputs, wanted in zip(given, expected, strict=True):
        for name, array in wanted.items():
            other = np.asarray(outputs[name] if name in outputs else next(iter(outputs.values())))
            if other.shape != array.shape:
                raise ValueError(f"the output '{name}' has shape {other.shape}; its source gives {array.shape}")
            pairs.append((array.astype(np.float64).ravel(), other.astype(np.float64).ravel()))
    wanted_all, given_all = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    error = float(np.max(np.abs(wanted_all - given_all)))
    first = next(iter(inputs[0]))
    return {
        "max_abs_error": error,
        "max_rel_error": error / max(float(np.max(np.abs(wanted_all))), FLOOR),
        "rank_correlation": spearman(wanted_all, given_all),
        "pairs": sum(len(batch[first]) for batch in inputs),
        "lengths": _lengths(inputs),
    }


def _lengths(inputs: Sequence[Arrays]) -> list[int]:
    """Real tokens of each row if a mask tells, else the size of the last axis."""
    lengths: set[int] = set()
    for batch in inputs:
        mask = batch.get("attention_mask")
        if mask is not None:
            lengths |= {int(size) for size in mask.sum(axis=-1).ravel()}
        else:
            lengths |= {int(array.shape[-1]) if array.ndim else 1 for array in batch.values()}
    return sorted(lengths)
