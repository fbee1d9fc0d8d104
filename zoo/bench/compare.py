"""Whether two measurements differ by more than the spread of their rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import msgspec

from zoo.bench.measure import VERSION
from zoo.checkpoints.model_config import checked
from zoo.errors import ZooError
from zoo.statistics import Interval, bootstrap
from zoo.strict_json import read_object

LEAST = 0.02
"""Smaller differences are called the same however sure they are: the next run's machine differs by more."""

FEWEST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One target and shape in both. ``ratio`` is the second's pairs a second over the first's; ``low`` to ``high`` hold 95 % of it."""

    target: str
    shape: str
    first: float
    second: float
    ratio: float
    low: float
    high: float
    verdict: Literal["faster", "slower", "same", "too few rounds"]


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Comparison]:
    """Every target and shape that both reports have, in the order of the first. Raises ZooError if there is none.

    The interval is a bootstrap of the ratio of both medians over the rounds; only one that leaves out 1, with a ratio more than
    ``LEAST`` from it, makes the second faster or slower.
    """
    others = {(entry["target"], entry["shape"]): entry for entry in second["results"]}
    found = [
        _compared(entry, others[entry["target"], entry["shape"]])
        for entry in first["results"]
        if (entry["target"], entry["shape"]) in others
    ]
    if not found:
        raise ZooError("the reports have no target and shape in common, so there is nothing to compare")
    return found


class _Rounds(msgspec.Struct):
    pairs_per_second: Annotated[list[Annotated[float, msgspec.Meta(gt=0)]], msgspec.Meta(min_length=1)]


class _Entry(msgspec.Struct):
    target: str
    shape: str
    rounds: _Rounds


class _Report(msgspec.Struct):
    results: list[_Entry]


def read_report(path: Path) -> dict[str, Any]:
    """A report that ``--mode bench`` wrote. Raises ZooError."""
    report = read_object(path)
    if report.get("zoo_bench") != VERSION:
        raise ZooError(f"{path} is not a report of the bench of this version of zoo")
    checked(report, _Report, path)
    return report


def _compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    before, after = (each["rounds"]["pairs_per_second"] for each in (first, second))
    ratio = median(after) / median(before)
    interval = _interval(before, after)
    if min(len(before), len(after)) < FEWEST_ROUNDS:
        verdict: Literal["faster", "slower", "same", "too few rounds"] = "too few rounds"
    elif interval.side_of(1) > 0 and ratio > 1 + LEAST:
        verdict = "faster"
    elif interval.side_of(1) < 0 and ratio < 1 - LEAST:
        verdict = "slower"
    else:
        verdict = "same"
    return Comparison(
        target=first["target"],
        shape=first["shape"],
        first=median(before),
        second=median(after),
        ratio=ratio,
        low=interval.low,
        high=interval.high,
        verdict=verdict,
    )


def _interval(before: Sequence[float], after: Sequence[float]) -> Interval:
    return bootstrap(
        lambda source: median(source.choices(after, k=len(after))) / median(source.choices(before, k=len(before)))
    )
