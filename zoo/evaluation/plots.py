"""The report's plots.

Shapes are SVG that is stretched to the page's width; words and numbers are HTML, so that they are as large on a phone as elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from zoo.wording import counted

WIDTH, HEIGHT = 800, 200
"""Of the drawing, in its own units; the style sheet gives its height on the page."""
BINS = 40


def gains_plot(gains: Sequence[float]) -> str:
    """A bar a query, from the largest gain to the largest loss; gains are from -1 to 1."""
    gains = sorted(gains, reverse=True)
    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    middle = HEIGHT / 2
    width = WIDTH / max(len(gains), 1)
    shapes = [
        f'<path d="{_bars(gains, sign, width)}" fill="var(--{color})"/>' for sign, color in ((1, "up"), (-1, "down"))
    ]
    same = len(gains) - up - down
    caption = (
        f"{counted(up, 'query gains', 'queries gain')}, {down:,} {'loses' if down == 1 else 'lose'}, "
        f"{same:,} {'stays' if same == 1 else 'stay'} (of {len(gains):,}, sorted)"
    )
    ticks = [(1.0, 0), (0.0, 50), (-1.0, 100)]
    lines = [_line(y) for y in (0.5, middle, HEIGHT - 0.5)]
    return _figure([*lines, *shapes], caption, [f"<span>{caption}</span>"], ticks=ticks)


def _bars(gains: Sequence[float], sign: int, width: float) -> str:
    middle = HEIGHT / 2
    return "".join(
        f"M{i * width:.2f} {middle:g}h{max(width * 0.85, 0.4):.2f}v{-gain * middle:.2f}h{-max(width * 0.85, 0.4):.2f}z"
        for i, gain in enumerate(gains)
        if gain * sign > 0
    )


def scores_plot(relevant: Sequence[float], other: Sequence[float]) -> str:
    """Two histograms over one range of scores, each as high as its own tallest bar."""
    values = [*relevant, *other]
    if not values:
        return '<p class="dim">There are no scores.</p>'
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    shapes = [_line(HEIGHT - 0.5)]
    for scores, color in ((other, "bar"), (relevant, "up")):
        bins = [0] * BINS
        for score in scores:
            bins[min(int((score - low) / span * BINS), BINS - 1)] += 1
        shapes.append(f'<path d="{_columns(bins)}" fill="var(--{color})" fill-opacity=".55"/>')
    legend = [
        f'<span><span class="key" style="background: var(--up)"></span>relevant ({len(relevant):,})</span>',
        f'<span><span class="key" style="background: var(--bar)"></span>other ({len(other):,})</span>',
        "<span>each group scaled to its own tallest bar</span>",
    ]
    scale = [f"{low + span * part / 4:.3g}" for part in range(5)]
    label = f"Distribution of scores: {len(relevant):,} relevant, {len(other):,} other"
    return _figure(shapes, label, legend, scale=scale)


def _columns(bins: Sequence[int]) -> str:
    width, tallest = WIDTH / BINS, max(bins) or 1
    return "".join(
        f"M{i * width:g} {HEIGHT}v{-count / tallest * HEIGHT:.1f}h{width * 0.95:g}V{HEIGHT}z"
        for i, count in enumerate(bins)
        if count
    )


def _line(y: float) -> str:
    return f'<path d="M0 {y:g}H{WIDTH}" stroke="var(--rule)" vector-effect="non-scaling-stroke"/>'


def _figure(
    shapes: Iterable[str],
    label: str,
    caption: Iterable[str],
    *,
    ticks: Iterable[tuple[float, float]] = (),
    scale: Sequence[str] = (),
) -> str:
    """``ticks`` are values with their place from the top in per cent; ``scale`` is written below, from edge to edge."""
    beside = "".join(f'<span class="tick" style="top: {top:g}%">{value:+.1f}</span>' for value, top in ticks)
    below = f'<div class="scale">{"".join(f"<span>{value}</span>" for value in scale)}</div>' if scale else ""
    return (
        f'<figure><div class="plot">{beside}<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{"".join(shapes)}</svg></div>{below}<figcaption>{"".join(caption)}</figcaption></figure>'
    )
