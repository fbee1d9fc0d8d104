"""Several values of a device option, measured side by side, and which of them is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.checks.bounds import Check
from zoo.checks.side import Side
from zoo.settings import RunSettings

AS_FAST = 0.95
"""A value that reaches this share of the fastest one's speed counts as just as fast: single measurements differ by so much."""


@dataclass(kw_only=True)
class Variant:
    """Settings with one value of the option that is compared; ``option`` is empty if none is. ``error`` is why it has no ``side``."""

    settings: RunSettings
    option: str = ""
    value: str = ""
    side: Side | None = None
    checks: list[Check] = field(default_factory=list)
    error: str = ""

    @property
    def passed(self) -> bool:
        return self.side is not None and all(check.passed for check in self.checks)

    @property
    def pairs_per_second(self) -> float:
        return float(self.side.facts["pairs_per_second"]) if self.side else 0.0

    @property
    def report(self) -> dict[str, Any]:
        """What the report of the comparison says of it."""
        about = {"option": self.option, "value": self.value, "passed": self.passed}
        if self.side is None:
            return {**about, "error": self.error}
        return {
            **about,
            "output_error": self.checks[0].deviation,
            "pairs_per_second": self.pairs_per_second,
            "device_seconds": self.side.facts["device_seconds"],
            "metrics": {name: dict(metrics) for name, metrics in self.side.metrics.items()},
            "exceeded": [check.name for check in self.checks if not check.passed],
        }


def variants(settings: RunSettings, compare: tuple[str, tuple[str, ...]] | None) -> list[Variant]:
    """The settings with each value in turn."""
    if compare is None:
        return [Variant(settings=settings)]
    option, values = compare
    return [
        Variant(
            settings=replace(settings, device_options={**settings.device_options, option: value}),
            option=option,
            value=value,
        )
        for value in dict.fromkeys(values)
    ]


def recommended(measured: Sequence[Variant]) -> Variant | None:
    """Of the variants inside every bound, those that are as fast as the fastest; of these, the one with the least error."""
    passed = [variant for variant in measured if variant.passed]
    fastest = max((variant.pairs_per_second for variant in passed), default=0.0)
    fast = [variant for variant in passed if variant.pairs_per_second >= AS_FAST * fastest]
    return min(fast, key=lambda variant: variant.checks[0].deviation, default=None)
