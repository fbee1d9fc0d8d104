"""Types of options that take a number."""

from __future__ import annotations

from typing import Any

import click

from zoo.numerals import decimal_number, whole_number


class IntRange(click.IntRange):
    """click's, for ASCII digits alone."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and whole_number(value) is None:
            self.fail(f"{value[:100]!r} is not a valid integer.", param, ctx)
        return super().convert(value, param, ctx)


class FloatRange(click.FloatRange):
    """click's, for finite numbers in ASCII digits alone."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and decimal_number(value) in (None, float("inf"), float("-inf")):
            self.fail(f"{value[:100]!r} is not a valid number.", param, ctx)
        return super().convert(value, param, ctx)
