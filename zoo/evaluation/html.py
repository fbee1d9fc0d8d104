"""``report.html``: one page that needs nothing beside it. Plots are SVG, drawn here; the only style is in the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from zoo.evaluation.markup import document, name, sentence, signed, table, text
from zoo.evaluation.metrics import MAIN, ranked
from zoo.evaluation.notes import against_first_stage, against_reference, remarks
from zoo.evaluation.plots import gains_plot, scores_plot
from zoo.evaluation.rerank import Result, improvement
from zoo.statistics import sigmoid
from zoo.wording import counted

WORST, SHOWN, TEXT = 10, 3, 400
"""Worst queries, passages shown of each, and characters shown of a text."""
COLORS = {"better": "up", "worse": "down"}


def page(report: Mapping[str, Any], results: Sequence[Result], *, normalize: bool = False) -> str:
    """The whole page. ``normalize`` shows scores as sigmoid(logit); ranks and metrics are by logits all the same."""
    settings = report["settings"]
    model, data, split = settings["model"], settings["data set"], settings["split"]
    languages = settings["languages"]
    parts = [
        f"<h1>{name(model)} on {name(data)} ({', '.join(map(name, languages))}, {name(split)})</h1>",
        f'<p><span class="big">{report["eval_metric"]}</span> nDCG@10'
        + (", the mean over the languages" if len(results) > 1 else "")
        + "</p>",
        _verdict(results, "This is "),
        *_reference(report["reference"]),
    ]
    for result in results:
        parts += _collection(result, normalize, alone=len(results) == 1)
    parts += [
        "<h2>Time</h2>", _time(report),
        "<h3>Slowest batches</h3>", _slowest(report["slowest_batches"]),
        "<h2>Made with</h2>", _made_with(report),
    ]  # fmt: skip
    return document(f"{model} on {data} ({', '.join(languages)}, {split})", parts)


def _verdict(results: Sequence[Result], begin: str) -> str:
    color = COLORS.get(improvement(results).verdict, "dim")
    head, colon, rest = escape(against_first_stage(results)).partition(":")
    return f'<p class="verdict">{begin}<strong class="{color}">{head}</strong>{colon}{rest}</p>'


def _reference(checks: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for check in checks:
        color = {True: "up", False: "down", None: "dim"}[check["reproduced"]]
        yield (
            f"<p>Reference: {name(check['metric'])} on {name(check['dataset'])} is {check['value']} ± {check['tolerance']} "
            f'<span class="dim">({name(check["settings"])}; {name(check["source"])})</span>. '
            f'Measured {check["measured"]}: <strong class="{color}">{sentence(against_reference(check))}</strong>.</p>'
        )


def _collection(result: Result, normalize: bool, alone: bool) -> list[str]:
    collection = result.collection
    counts = (
        f"{counted(len(result.per_query), 'query', 'queries')}, {counted(collection.pairs, 'candidate')} "
        f"by {name(collection.retriever)}"
    )
    named = [*collection.missing[:1], *collection.absent[:1]]
    return [
        f"<h2>{name(collection.label)}</h2>",
        *([] if alone else [_verdict([result], "nDCG@10 is ")]),
        f'<p class="dim">{counts}. {". ".join(_capital(sentence(each, named)) for each in remarks(result))}.</p>',
        *(f'<p><strong class="down">Warning:</strong> {sentence(warning)}</p>' for warning in result.warnings),
        _metrics(result),
        "<h3>nDCG@10, reranked less first stage, query by query</h3>",
        gains_plot(result.gains),
        "<h3>Scores of relevant and of other candidates</h3>",
        scores_plot(*_by_relevance(result, normalize)),
        "<h3>Worst queries</h3>",
        *_worst(result, normalize),
    ]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _metrics(result: Result) -> str:
    rows = []
    for metric, value in result.reranked.items():
        before = result.first_stage.get(metric)  # a plugin's metric may have failed on the first stage
        compared = ["–", "–"] if before is None else [f"{before:.5f}", signed(value - before)]
        rows.append([name(metric), compared[0], f"{value:.5f}", compared[1]])
    return table(["metric", "first stage", "reranked", "difference"], rows, numeric=3)


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
    lines = [text(collection.queries[query], strong=True), f"<p class=dim>{name(query)}: {figures}</p>"]
    if not relevant:
        lines.append('<p class="dim">None of its relevant passages is among the candidates.</p>')
    for passage in shown:
        score = sigmoid(scores[passage]) if normalize else scores[passage]
        kind = "relevant" if judged.get(passage, 0) > 0 else "not relevant"
        mark = f'<span class="{"up" if kind == "relevant" else "dim"}">{kind}</span>'
        place = f"rank {after.index(passage) + 1} (was {before.index(passage) + 1}), {score:.4g}"
        lines.append(f'<p><span class="dim">{place}, {name(passage)}</span> {mark}</p>')
        lines.append(text(collection.passages[passage], most=TEXT))
    return f'<div class="q">{"".join(lines)}</div>'


def _time(report: Mapping[str, Any]) -> str:
    timing, cut = report["timing"], report["truncation"]
    rows = [
        ("end to end", f"{timing['e2e']:.2f} s"),
        ("device idle, waiting for data", f"{timing['data']:.2f} s"),
        ("pairs scored", f"{timing['pairs']:,} ({timing['pairs_per_second']:.1f} a second)"),
        ("tokens a second", f"{timing['tokens_per_second']:.0f}"),
        ("batches", f"{timing['batches']:,}"),
        ("batches from the journal", f"{timing['recalled_batches']:,}"),
        (
            "a batch on the device, p50 / p90 / p99",
            " / ".join(f"{s * 1e3:.1f}" for s in timing["latency"].values()) + " ms",
        ),
        ("a batch's tokenising", f"{timing['preprocess'] * 1e3:.1f} ms"),
        ("padding ratio", f"{report['padding_ratio']:.3f}"),
        ("passages cut", f"{cut['passages_truncated']:,} of {cut['pairs']:,}"),
        ("queries cut", f"{cut['queries_truncated']:,}"),
    ]
    return table(["", ""], rows, numeric=1)


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
    return table(["milliseconds", "rows", "length", "tokens", "tokens a second"], rows, numeric=5)


def _made_with(report: Mapping[str, Any]) -> str:
    rows = [
        (name(key), f"<code>{name(_plain(value))}</code>")
        for section in ("settings", "device", "host", "versions")
        for key, value in report[section].items()
    ]
    return table(["", ""], rows, numeric=0)


def _plain(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)
