"""``report.html``: one page that needs nothing beside it. Plots are SVG, drawn here; the only style is in the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from zoo.evaluation.metrics import MAIN, ranked
from zoo.evaluation.rerank import Result
from zoo.statistics import sigmoid

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, LEGEND = 860, 240, 56, 34, 12, 36
WORST, SHOWN, TEXT = 10, 3, 400
"""Worst queries, passages shown of each, and characters shown of a text."""
BINS = 40

STYLE = """
:root { --ink: #1c2330; --dim: #667085; --rule: #d9dee7; --paper: #fff; --up: #16794c; --down: #b42318; --bar: #3b6fb6; --soft: #f5f7fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --dim: #9aa4b5; --rule: #343c4a; --paper: #161a21; --up: #4cc38a; --down: #ff8b7e; --bar: #7aa9e6;
    --soft: #1f252f }
}
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; color: var(--ink);
  background: var(--paper);  max-width: 940px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--rule) }
h3 { font-size: 1rem; margin-bottom: .3rem } p.dim, .dim { color: var(--dim) } .big { font-size: 2rem; font-weight: 600 }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums } td, th { padding: .2rem .8rem .2rem 0;
  text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule) } td.n, th.n { text-align: right }
.up { color: var(--up) } .down { color: var(--down) } svg { width: 100%; height: auto } svg text { fill: var(--dim); font-size: 12px }
.wide { overflow-x: auto } .q { background: var(--soft); border-radius: 6px; padding: .6rem .9rem; margin: .8rem 0 }
.q p { margin: .25rem 0; overflow-wrap: anywhere } code { overflow-wrap: anywhere }
"""


def page(report: Mapping[str, Any], results: Sequence[Result], *, normalize: bool = False) -> str:
    """The whole page. ``normalize`` shows scores as sigmoid(logit); ranks and metrics are by logits all the same."""
    settings = report["settings"]
    title = f"{settings['model']} on {settings['data set']} ({', '.join(settings['languages'])}, {settings['split']})"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p><span class="big">{report["eval_metric"]}</span> nDCG@10'
        + (", the mean over the languages" if len(results) > 1 else "")
        + "</p>",
        *_reference(report["reference"]),
    ]
    for result in results:
        parts += _collection(result, normalize)
    parts += [
        "<h2>Time</h2>", _time(report),
        "<h3>Slowest batches</h3>", _slowest(report["slowest_batches"]),
        "<h2>Made with</h2>", _made_with(report),
    ]  # fmt: skip
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _reference(checks: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for check in checks:
        inside = check["reproduced"] and check["comparable"]
        verdict = (
            "reproduced"
            if inside
            else "not reproduced"
            if check["comparable"]
            else "not comparable (queries are limited)"
        )
        yield (
            f"<p>Reference: {escape(check['metric'])} on {escape(check['dataset'])} is {check['value']} ± {check['tolerance']} "
            f'<span class="dim">({escape(check["settings"])}; {escape(check["source"])})</span>. '
            f'Measured {check["measured"]}: <strong class="{"up" if inside else "down"}">{verdict}</strong>.</p>'
        )


def _collection(result: Result, normalize: bool) -> list[str]:
    collection, ties = result.collection, result.ties
    counts = (
        f"{len(result.per_query)} queries, {collection.pairs} candidates by {collection.retriever}; "
        f"{ties.scores} tied scores in the top 10"
    )
    if ties.scores:
        counts += f" (nDCG@10 between {ties.worst} and {ties.best} by their order)"
    if collection.missing:
        counts += f"; {len(collection.missing)} judged queries without candidates"
    if result.chunks > collection.pairs:
        counts += f"; scored in {result.chunks} chunks"
    return [
        f"<h2>{escape(collection.label)}</h2>",
        f'<p class="dim">{escape(counts)}</p>',
        _metrics(result),
        "<h3>nDCG@10, reranked less first stage, query by query</h3>",
        _gains(result),
        "<h3>Scores of relevant and of other candidates</h3>",
        _distribution(result, normalize),
        "<h3>Worst queries</h3>",
        *_worst(result, normalize),
    ]


def _metrics(result: Result) -> str:
    rows = [
        [escape(name), f"{result.first_stage[name]:.5f}", f"{value:.5f}", _signed(value - result.first_stage[name])]
        for name, value in result.reranked.items()
    ]
    return _table(["metric", "first stage", "reranked", "difference"], rows, numeric=3)


def _signed(value: float) -> str:
    kind = "up" if value > 0 else "down" if value < 0 else "dim"
    return f'<span class="{kind}">{value:+.5f}</span>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: int) -> str:
    """Cells are HTML; the last ``numeric`` columns are numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        first = len(cells) - numeric
        made = (f"<{tag}{' class=n' if i >= first else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f'<div class="wide"><table>{row([escape(cell) for cell in head], "th")}{body}</table></div>'


def _gains(result: Result) -> str:
    gains = sorted(
        (values[MAIN] - result.first_per_query[query][MAIN] for query, values in result.per_query.items()), reverse=True
    )
    up, down = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    width = (WIDTH - LEFT) / max(len(gains), 1)
    middle, unit = TOP + (HEIGHT - TOP - BOTTOM) / 2, (HEIGHT - TOP - BOTTOM) / 2
    shapes = [
        f'<path d="{_bars(gains, keep, width, middle, unit)}" fill="var(--{color})"/>'
        for keep, color in ((1, "up"), (-1, "down"))
    ]
    axis = _axis([(1.0, middle - unit), (0.0, middle), (-1.0, middle + unit)])
    caption = f"{up} queries gain, {down} lose, {len(gains) - up - down} stay (of {len(gains)}, sorted)"
    return _svg([*axis, *shapes, f'<text x="{LEFT}" y="{HEIGHT - 10}">{caption}</text>'], caption)


def _bars(gains: Sequence[float], sign: int, width: float, middle: float, unit: float) -> str:
    return "".join(
        f"M{LEFT + i * width:.2f} {middle:.2f}h{max(width * 0.85, 0.4):.2f}v{-gain * unit:.2f}h{-max(width * 0.85, 0.4):.2f}z"
        for i, gain in enumerate(gains)
        if gain * sign > 0
    )


def _axis(ticks: Iterable[tuple[float, float]]) -> Iterable[str]:
    for value, y in ticks:
        yield f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--rule)"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:+.1f}</text>'


def _svg(shapes: Iterable[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(shapes)}</svg>'


def _distribution(result: Result, normalize: bool) -> str:
    relevant, other = _by_relevance(result, normalize)
    values = [*relevant, *other]
    if not values:
        return '<p class="dim">There are no scores.</p>'
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    floor, room, width = HEIGHT - BOTTOM, HEIGHT - BOTTOM - LEGEND, (WIDTH - LEFT) / BINS
    shapes = [f'<line x1="{LEFT}" x2="{WIDTH}" y1="{floor}" y2="{floor}" stroke="var(--rule)"/>']
    for scores, color, name in ((other, "bar", "other"), (relevant, "up", "relevant")):
        bins = [0] * BINS
        for score in scores:
            bins[min(int((score - low) / span * BINS), BINS - 1)] += 1
        tallest = max(bins) or 1
        path = "".join(
            f"M{LEFT + i * width:.1f} {floor}v{-count / tallest * room:.1f}h{width - 1:.1f}v{count / tallest * room:.1f}z"
            for i, count in enumerate(bins)
            if count
        )
        shapes.append(f'<path d="{path}" fill="var(--{color})" fill-opacity=".55"><title>{name}</title></path>')
    for i in range(5):
        x, value = LEFT + (WIDTH - LEFT) * i / 4, low + span * i / 4
        anchor = "start" if i == 0 else "end" if i == 4 else "middle"
        shapes.append(f'<text x="{x:.0f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{value:.3g}</text>')
    shapes += [
        f'<rect x="{LEFT + 10}" y="{TOP}" width="10" height="10" fill="var(--up)" fill-opacity=".55"/>',
        f'<text x="{LEFT + 26}" y="{TOP + 10}">relevant ({len(relevant)})</text>',
        f'<rect x="{LEFT + 140}" y="{TOP}" width="10" height="10" fill="var(--bar)" fill-opacity=".55"/>',
        f'<text x="{LEFT + 156}" y="{TOP + 10}">other ({len(other)}); each group scaled to its own tallest bar</text>',
    ]
    return _svg(shapes, "distribution of scores")


def _by_relevance(result: Result, normalize: bool) -> tuple[list[float], list[float]]:
    groups: tuple[list[float], list[float]] = ([], [])
    for query, scores in result.run.items():
        judged = result.collection.qrels[query]
        for passage, score in scores.items():
            shown = sigmoid(score) if normalize else score
            groups[judged.get(passage, 0) <= 0].append(shown)
    return groups


def _worst(result: Result, normalize: bool) -> Iterable[str]:
    def order(query: str) -> tuple[float, float]:
        after = result.per_query[query][MAIN]
        return after, after - result.first_per_query[query][MAIN]

    worst = [query for query in sorted(result.per_query, key=order)[:WORST] if result.per_query[query][MAIN] < 1]
    if not worst:
        yield '<p class="dim">Every query has its relevant passages on top.</p>'
    for query in worst:
        yield _worst_query(result, query, normalize)


def _worst_query(result: Result, query: str, normalize: bool) -> str:
    collection, scores = result.collection, result.run[query]
    after, before = ranked(scores), ranked(collection.candidates[query])
    judged = collection.qrels[query]
    figures = f"nDCG@10 {result.first_per_query[query][MAIN]:.3f} before, {result.per_query[query][MAIN]:.3f} after"
    relevant = [passage for passage in after if judged.get(passage, 0) > 0]
    shown = [*after[:SHOWN], *(passage for passage in relevant[:1] if passage not in after[:SHOWN])]
    lines = [
        f"<p><strong>{escape(collection.queries[query])}</strong> <span class=dim>{escape(query)}: {figures}</span></p>"
    ]
    if not relevant:
        lines.append('<p class="dim">None of its relevant passages is among the candidates.</p>')
    for passage in shown:
        score = sigmoid(scores[passage]) if normalize else scores[passage]
        mark = (
            '<span class="up">relevant</span>'
            if judged.get(passage, 0) > 0
            else '<span class="dim">not relevant</span>'
        )
        place = f"rank {after.index(passage) + 1} (was {before.index(passage) + 1}), {score:.4g}"
        lines.append(
            f'<p><span class="dim">{place}, {escape(passage)}</span> {mark}<br>{_excerpt(collection.passages[passage])}</p>'
        )
    return f'<div class="q">{"".join(lines)}</div>'


def _excerpt(text: str) -> str:
    return escape(text if len(text) <= TEXT else f"{text[:TEXT]} …")


def _time(report: Mapping[str, Any]) -> str:
    timing, cut = report["timing"], report["truncation"]
    rows = [
        ("end to end", f"{timing['e2e']:.2f} s"),
        ("device idle, waiting for data", f"{timing['data']:.2f} s"),
        ("pairs scored", f"{timing['pairs']} ({timing['pairs_per_second']:.1f} a second)"),
        ("tokens a second", f"{timing['tokens_per_second']:.0f}"),
        ("batches", f"{timing['batches']}, and {timing['recalled_batches']} from the journal"),
        (
            "a batch on the device, p50 / p90 / p99",
            " / ".join(f"{s * 1e3:.1f}" for s in timing["latency"].values()) + " ms",
        ),
        ("a batch's tokenising", f"{timing['preprocess'] * 1e3:.1f} ms"),
        ("padding ratio", f"{report['padding_ratio']:.3f}"),
        ("passages cut", f"{cut['passages_truncated']} of {cut['pairs']}"),
        ("queries cut", f"{cut['queries_truncated']}"),
    ]
    return _table(["", ""], rows, numeric=1)


def _slowest(batches: Sequence[Mapping[str, Any]]) -> str:
    if not batches:
        return '<p class="dim">The device did nothing: every batch was in the journal.</p>'
    rows = [
        [
            f"{b['seconds'] * 1e3:.1f}",
            str(b["rows"]),
            str(b["length"]),
            str(b["tokens"]),
            f"{b['tokens'] / max(b['seconds'], 1e-9):.0f}",
        ]
        for b in batches
    ]
    return _table(["milliseconds", "rows", "length", "tokens", "tokens a second"], rows, numeric=5)


def _made_with(report: Mapping[str, Any]) -> str:
    rows = [
        (escape(str(key)), f"<code>{escape(_text(value))}</code>")
        for section in ("settings", "device", "host", "versions")
        for key, value in report[section].items()
    ]
    return _table(["", ""], rows, numeric=0)


def _text(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return str(value)
