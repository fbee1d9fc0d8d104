"""A report as a picture. ``pip install 'zoo-runner[plot]'``"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.errors import NotInstalledError, ZooError
from zoo.files import atomic_path

LATENCIES = ("p50", "p90", "p95", "p99")
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "zoo"}
BAR_GROUP = 0.8
"""Share of the axis that the bars of one shape take together."""
ROOM = 44
"""Characters of shapes that fit side by side below an axis."""
FAR_APART = 10
"""Latencies that differ by a larger factor are drawn on a logarithmic axis: the small ones would be lines."""


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw throughput and latency of every target, shape by shape, as SVG to ``path``.

    A bar is the median of the rounds, and its line spans all of them; latencies are p50, with a line from there to p99, on a logarithmic
    axis if they are far apart.
    Raises NotInstalledError, and ZooError if the report has no results.
    """
    figure = figure_class()(figsize=(11, 4.5), layout="constrained")
    targets, shapes = _names(report, "target"), _names(report, "shape")
    if not targets:
        raise ZooError("there is nothing to draw: the report has no results")
    pairs, latency = figure.subplots(1, 2)
    found = {(each["target"], each["shape"]): each for each in report["results"]}
    width = BAR_GROUP / len(targets)
    for number, target in enumerate(targets):
        entries = [found.get((target, shape)) for shape in shapes]
        places = [
            place - BAR_GROUP / 2 + width * (number + 0.5) for place, entry in enumerate(entries) if entry is not None
        ]
        there = [entry for entry in entries if entry is not None]
        throughput = [entry["pairs_per_second"] for entry in there]
        rounds = [entry["rounds"]["pairs_per_second"] for entry in there]
        pairs.bar(places, throughput, width, label=target, yerr=_spans(throughput, rounds), capsize=2)
        middle = [entry["latency_ms"]["p50"] for entry in there]
        tails = [[entry["latency_ms"][name] for name in LATENCIES] for entry in there]
        latency.bar(places, middle, width, label=target, yerr=_spans(middle, tails), capsize=2)
    for axes, title in ((pairs, "throughput (pairs/s, all rounds)"), (latency, "latency (ms, p50 to p99)")):
        axes.set_title(title)
        axes.set_xticks(range(len(shapes)), shapes, rotation=45 if len("".join(shapes)) > ROOM else 0)
        axes.set_xlabel("rows x tokens")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
    middles = [each["latency_ms"]["p50"] for each in report["results"]]
    if max(middles) > FAR_APART * min(middles) > 0:
        latency.set_yscale("log")
        latency.yaxis.set_major_formatter("{x:g}")
        latency.set_ylim(bottom=min(middles) / 2)
    pairs.legend()
    # Text stays text, and the same report gives the same file.
    with importlib.import_module("matplotlib").rc_context(STYLE), atomic_path(path) as aside:
        figure.savefig(aside, format="svg", metadata={"Date": None})


def figure_class() -> Any:
    """What pictures are drawn on. Raises NotInstalledError, before minutes of measurement."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise NotInstalledError(
            "a plot needs the package 'matplotlib', which is not installed: pip install 'zoo-runner[plot]'"
        ) from error


def _names(report: Mapping[str, Any], key: str) -> list[str]:
    return list(dict.fromkeys(entry[key] for entry in report.get("results", ())))


def _spans(middles: Sequence[float], values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Distances from each middle down to the least and up to the greatest of its values."""
    together = list(zip(middles, values, strict=True))
    return [
        [max(middle - min(each), 0.0) for middle, each in together],
        [max(max(each) - middle, 0.0) for middle, each in together],
    ]
