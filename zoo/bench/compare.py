"""Whether two measurements differ by more than the spread of their rounds and what other programs on the machine explain."""

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

LEAST_WAITING = 0.3
"""The same for a machine on which threads waited all the time for a processor, in proportion. Other programs take caches too: ten runs
of one thing, which waited for 50 to 70 % of the time, differed by up to 15 % in the CPU time of a pair."""

FEWEST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One target and shape in both. ``ratio`` is the second's pairs a second over the first's; ``low`` to ``high`` hold 95 % of it.

    They also hold what it would be if in both nothing had waited for a processor. ``waiting`` is the larger share of time spent so.
    ``first`` and ``second`` are pairs a second, the medians over the rounds. ``verdict`` is on the second.
    """

    target: str
    shape: str
    first: float
    second: float
    ratio: float
    low: float
    high: float
    waiting: float
    verdict: Literal["faster", "slower", "same", "too few rounds"]


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Comparison]:
    """Every target and shape that both reports have, in the order of the first. Raises ZooError if there is none.

    The interval is a bootstrap of the ratio of both medians over the rounds, as measured and with each round's time less the share in
    which its threads waited for a processor: which is right depends on whether the device is bound by processors. The second is
    faster or slower if the interval leaves out 1 and both ratios are more from it than ``LEAST`` and ``LEAST_WAITING`` of the waiting.
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
    waiting: list[Annotated[float, msgspec.Meta(ge=0, le=1)]] = []


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
    waits = [each["rounds"].get("waiting", []) for each in (first, second)]
    waiting = max(median(shares) if shares else 0.0 for shares in waits)
    alone = [_alone(rounds, shares) for rounds, shares in zip((before, after), waits, strict=True)]
    ratios = [median(after) / median(before), median(alone[1]) / median(alone[0])]
    intervals = [_interval(before, after), _interval(*alone)]
    interval = Interval(min(each.low for each in intervals), max(each.high for each in intervals))
    least = LEAST + LEAST_WAITING * waiting
    if min(len(before), len(after)) < FEWEST_ROUNDS:
        verdict: Literal["faster", "slower", "same", "too few rounds"] = "too few rounds"
    elif interval.side_of(1) > 0 and min(ratios) > 1 + least:
        verdict = "faster"
    elif interval.side_of(1) < 0 and max(ratios) < 1 - least:
        verdict = "slower"
    else:
        verdict = "same"
    return Comparison(
        target=first["target"],
        shape=first["shape"],
        first=median(before),
        second=median(after),
        ratio=ratios[0],
        low=interval.low,
        high=interval.high,
        waiting=waiting,
        verdict=verdict,
    )


def _alone(rounds: Sequence[float], waits: Sequence[float]) -> list[float]:
    """Pairs a second if the threads had always had a processor; as measured if the report does not say how long they waited."""
    if len(waits) != len(rounds):
        return list(rounds)
    return [pairs / max(1 - share, 0.01) for pairs, share in zip(rounds, waits, strict=True)]


def _interval(before: Sequence[float], after: Sequence[float]) -> Interval:
    return bootstrap(
        lambda source: median(source.choices(after, k=len(after))) / median(source.choices(before, k=len(before)))
    )
