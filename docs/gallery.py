"""The plots of the gallery, taken from a report of ``zoo run --mode valid``: ``python docs/gallery.py REPORT.html``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "gallery"
STYLE = """<style>
svg { --ink: #1c2330; --dim: #667085; --rule: #d9dee7; --up: #16794c; --down: #b42318; --bar: #3b6fb6; background: #fff }
text { fill: var(--dim); font: 12px system-ui, sans-serif }
</style>"""
"""A picture of its own has no page to take its colours from, and is shown on pages of any colour."""


def plots(report: str) -> Iterator[tuple[str, str]]:
    """Each plot of a report by the name of its file: ``LANGUAGE-difference.svg`` and ``LANGUAGE-scores.svg``."""
    for language, section in re.findall(r"<h2>(\w+)-\w+</h2>(.*?)(?=<h2>)", report, re.DOTALL):
        for kind, plot in zip(("difference", "scores"), re.findall(r"<svg.*?</svg>", section, re.DOTALL), strict=True):
            opening, _, rest = plot.partition(">")
            yield f"{language}-{kind}.svg", f'{opening} xmlns="http://www.w3.org/2000/svg">{STYLE}{rest}\n'


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, plot in plots(Path(sys.argv[1]).read_text(encoding="utf-8")):
        (FOLDER / name).write_text(plot, encoding="utf-8")


if __name__ == "__main__":
    main()
