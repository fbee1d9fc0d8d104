"""Progress on stderr: a bar with the time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias, TypeVar

import click

from zoo.cli.boundary import is_terminal, tell

T = TypeVar("T")
PLAIN_INTERVAL = 10.0
"""Seconds between plain lines: enough to see that a job lives, few enough not to fill a log."""


Progress: TypeAlias = Literal["auto", "plain", "off"]


progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "off"]),
    default="auto",
    show_default=True,
    help="Progress on stderr: auto is a bar on a terminal and plain lines elsewhere.",
)


def progress(items: Iterable[T], total: int | None, label: str, style: Progress = "auto") -> Iterator[T]:
    """``items``, with their count shown: a bar where stderr is a terminal (``auto``), plain lines, or nothing.

    ``total`` None means that nobody knows how many there are.
    """
    if style == "off":
        return iter(items)
    if style == "auto" and is_terminal(sys.stderr):
        return _with_bar(items, total, label)
    return _with_lines(items, total, label)


def _with_bar(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track

    yield from track(items, total=total, description=label, console=Console(stderr=True), transient=True)


def _with_lines(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PLAIN_INTERVAL and (total is None or done < total):
            last, rate = now, done / (now - started)
            if total is None:
                tell(f"{label}: {done}, {rate:.1f} a second")
                continue
            tell(f"{label}: {done}/{total}, {rate:.1f} a second, {_duration((total - done) / rate)} left")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
