"""What people read of a run: first stage against reranked, the verdict on it, and what belongs beside the figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zoo.evaluation.datasets.collection import Collection
from zoo.evaluation.metrics import MAIN
from zoo.evaluation.rerank import Result, improvement, overall
from zoo.evaluation.timing import Timing
from zoo.scoring.scorer import RunStats
from zoo.statistics import CONFIDENCE, FEWEST_PAIRS
from zoo.wording import counted


def table(results: Sequence[Result]) -> list[str]:
    """First stage against reranked, metric by metric, and whether the difference is more than chance."""
    lines = []
    for result in results:
        collection = result.collection
        lines.append(f"{collection.dataset} {collection.label}: {scope(result)}")
        lines.append(f"  {'metric':<16} {'first stage':>11} {'reranked':>9} {'difference':>10}")
        for name, value in result.reranked.items():
            before = result.first_stage.get(name, math.nan)  # a plugin's metric may have failed on the first stage
            lines.append(f"  {name:<16} {before:>11.5f} {value:>9.5f} {value - before:>+10.5f}")
        lines.append(f"  nDCG@10 is {against_first_stage([result])}")
    if len(results) > 1:
        lines.append(f"mean of {len(results)} languages: nDCG@10 is {against_first_stage(results)}")
    return lines


def scope(result: Result) -> str:
    """``30 queries, 600 candidates by bm25``."""
    candidates = counted(result.collection.pairs, "candidate")
    return f"{counted(len(result.per_query), 'query', 'queries')}, {candidates} by {result.collection.retriever}"


def against_first_stage(results: Sequence[Result]) -> str:
    """The verdict in words, with the difference, its interval and the test."""
    test, before = improvement(results), overall(results, first_stage=True)
    if test.interval is None:
        return (
            f"{test.difference:+.4f} from the first stage's {before:.4f}: too few queries to tell whether that is chance "
            f"({test.pairs}; at least {FEWEST_PAIRS} are needed, and two of each language)"
        )
    verdict = "within noise of" if test.verdict == "within noise" else f"{test.verdict} than"
    share = "p < 0.001" if test.p is not None and test.p < 0.001 else f"p = {test.p:.3f}"
    return (
        f"{verdict} the first stage's {before:.4f}: {test.difference:+.4f}, with {CONFIDENCE:.0%} confidence between "
        f"{test.interval.low:+.4f} and {test.interval.high:+.4f} (paired t-test over {test.pairs:,} queries, {share})"
    )


def against_reference(check: Mapping[str, Any]) -> str:
    """Whether a card's value was reproduced, or why it cannot be compared."""
    if check["not_comparable"]:
        return f"not comparable: {'; '.join(check['not_comparable'])}"
    return "reproduced" if check["reproduced"] else "NOT reproduced"


def notes(results: Sequence[Result], checks: Iterable[Mapping[str, Any]], stats: RunStats, timing: Timing) -> list[str]:
    """What belongs beside the figures, a sentence a line."""
    references = [
        f"reference: {check['metric']} on {check['dataset']} is {check['value']} ± {check['tolerance']} "
        f"({check['settings']}; {check['source']}): measured {check['measured']}, {against_reference(check)}"
        for check in checks
    ]
    unknown = [
        f"{result.collection.label}: {result.reading.share:.1%} of the tokens are unknown to the model's vocabulary"
        for result in results
        if result.reading.share >= 0.001
    ]
    cut = (
        f"{stats.passages_truncated:,} of {counted(stats.pairs, 'passage')} cut, "
        f"{counted(stats.queries_truncated, 'query', 'queries')} cut; padding ratio {stats.padding_ratio:.3f}"
    )
    about = [line for result in results for line in _about(result)]
    return [*references, *about, *unknown, cut, *_times(timing)]


def _about(result: Result) -> Iterator[str]:
    yield from (f"warning: {warning}" for warning in result.warnings)
    yield from (f"{result.collection.label}: {sentence}" for sentence in remarks(result))


def remarks(result: Result) -> Iterator[str]:
    """What is unusual about the data or the scores and decides figures, a sentence each."""
    collection, ties = result.collection, result.ties
    if collection.missing:
        have = "has" if len(collection.missing) == 1 else "have"
        yield (
            f"{counted(len(collection.missing), 'judged query', 'judged queries')} {have} no candidates (the first is "
            f"'{collection.missing[0]}'): trec_eval's means leave {'it' if have == 'has' else 'them'} out, "
            f"MRR and capped recall count {'it' if have == 'has' else 'them'} as 0"
        )
    yield from data_notes(collection)
    if ties.scores:
        yield (
            f"{counted(ties.scores, 'tied score')} in the top 10 of {counted(ties.queries, 'query', 'queries')}; "
            f"by the order among them {MAIN} lies between {ties.worst} and {ties.best}"
        )
    else:
        yield "no tied scores in the top 10"
    if result.chunks > collection.pairs:
        were = "was" if collection.pairs == 1 else "were"
        yield (
            f"{counted(collection.pairs, 'passage')} {were} scored in {counted(result.chunks, 'chunk')}, "
            f"{result.chunks / collection.pairs:.2f} times the cost of cutting them off"
        )


def data_notes(collection: Collection) -> list[str]:
    """What is unusual about the data and decides figures, a sentence each."""
    notes = []
    if count := collection.identical:
        were, their = ("was", "its") if count == 1 else ("were", "their")
        done = "left out, as the rule is" if collection.identical_left_out else "ranked with the others"
        notes.append(
            f"{counted(count, 'candidate')} had the id of {their} own query and {were} {done} (`ignore_identical_ids`)"
        )
    if absent := collection.absent:
        are, count_as = ("is", "counts") if len(absent) == 1 else ("are", "count")
        notes.append(
            f"{counted(len(absent), 'judged passage')} {are} not in the corpus (the first is '{absent[0]}') "
            f"and {count_as} as not found"
        )
    return notes


def _times(timing: Timing) -> Iterator[str]:
    if timing.recalled_batches:
        yield (
            f"{timing.recalled_batches:,} of {counted(timing.recalled_batches + timing.batches, 'batch', 'batches')} "
            "came from the journal; times and rates are those of the others (measure all of them with `overwrite`)"
        )
    if timing.batches:
        p50, p90, p99 = timing.latency.values()
        yield (
            f"{counted(timing.pairs, 'pair')} in {timing.e2e:.2f} s: {timing.pairs_per_second:.1f} pairs/s, "
            f"{timing.tokens_per_second:.0f} tokens/s; "
            f"a batch took {p50 * 1e3:.1f} / {p90 * 1e3:.1f} / {p99 * 1e3:.1f} ms (p50 / p90 / p99)"
        )
