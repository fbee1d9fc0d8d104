"""Arithmetic that several rooms share: ranks, percentiles, and whether a difference is more than chance."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any, Literal, NamedTuple

CONFIDENCE = 0.95
"""Of every interval."""
DRAWS = 2000
"""Draws of the bootstrap, always the same ones."""
FEWEST_PAIRS = 6
"""Were all signs of five differences equal, chance alone would give that in 2 of 32 cases: more often than 1 - CONFIDENCE."""


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-logit) without overflow at either end."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed (nearest rank); 0 if there are no values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(math.ceil(len(ordered) * share) - 1, 0)]


def spearman(first: Any, second: Any) -> float:
    """Rank correlation; equal values share their mean rank. 1 if there is nothing to rank."""
    import numpy as np

    ranks = [_ranks(np.asarray(values)) for values in (first, second)]
    if min(len(ranks[0]), *(rank.std() > 0 for rank in ranks)) < 1:
        return 1.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Any) -> Any:
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


class Interval(NamedTuple):
    """What holds a value with ``CONFIDENCE``."""

    low: float
    high: float

    def side_of(self, neutral: float) -> Literal[-1, 0, 1]:
        """-1 if the whole interval is below ``neutral``, 1 if it is above, 0 if it holds it."""
        return -1 if self.high < neutral else 1 if self.low > neutral else 0


def bootstrap(estimate: Callable[[random.Random], float]) -> Interval:
    """The percentile interval of ``estimate``, which draws a sample from its data with the given source and measures it."""
    source = random.Random(7)  # noqa: S311  # draws, not secrets
    drawn = sorted(estimate(source) for _ in range(DRAWS))
    outside = (1 - CONFIDENCE) / 2
    return Interval(drawn[round(outside * DRAWS)], drawn[round((1 - outside) * DRAWS) - 1])


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Whether the second of two measurements of the same things is better. Of several groups it is about the mean of their means."""

    pairs: int
    difference: float
    """Second less first."""
    interval: Interval | None
    """Of the difference; None if there are too few pairs to tell."""
    p: float | None
    """How often chance alone would give a mean as far from 0."""

    @property
    def verdict(self) -> Literal["better", "worse", "within noise", "too few to tell"]:
        if self.interval is None:
            return "too few to tell"
        return {1: "better", -1: "worse", 0: "within noise"}[self.interval.side_of(0)]  # type: ignore[return-value]


def paired_test(groups: Sequence[Sequence[float]]) -> PairedTest:
    """Student's paired t-test of differences, two-sided. Groups may have different variances (Welch's degrees of freedom)."""
    pairs = sum(map(len, groups))
    difference = fmean(map(fmean, filter(None, groups))) if pairs else 0.0
    if pairs < FEWEST_PAIRS or min(map(len, groups)) < 2:
        return PairedTest(pairs=pairs, difference=difference, interval=None, p=None)
    parts = [variance(group) / len(group) / len(groups) ** 2 for group in groups]
    error = math.sqrt(sum(parts))
    if error <= 1e-12:  # all differences of a group are equal, but for rounding
        same = abs(difference) <= 1e-12
        return PairedTest(
            pairs=pairs, difference=difference, interval=Interval(difference, difference), p=1.0 if same else 0.0
        )
    freedom = sum(parts) ** 2 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
    reach = error * _t_quantile(freedom)
    return PairedTest(
        pairs=pairs,
        difference=difference,
        interval=Interval(difference - reach, difference + reach),
        p=t_tails(difference / error, freedom),
    )


def t_tails(t: float, freedom: float) -> float:
    """The share of Student's distribution that is as far from 0 as ``t``, on both sides."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _t_quantile(freedom: float) -> float:
    """The t that leaves 1 - CONFIDENCE in both tails, by bisection."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, freedom) > 1 - CONFIDENCE else (low, middle)
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function by its continued fraction (Abramowitz and Stegun 26.5.8, Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    found = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            found *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * found / a
