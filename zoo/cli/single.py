"""``zoo run --mode single``: a relevance score for each pair."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from zoo.checkpoints.resolve import check_name
from zoo.cli.boundary import Stdout, is_terminal, speaks_utf8
from zoo.cli.progress import Progress, progress
from zoo.files import atomic_write
from zoo.pairs import PairSource, Record, read_pairs
from zoo.paths import bundled
from zoo.registry.catalogue import Catalogue
from zoo.reranker import Reranker
from zoo.scoring.scorer import MUCH_OF_A_PAIR, MUCH_UNKNOWN, RunStats, Scorer
from zoo.settings import RunSettings
from zoo.statistics import sigmoid
from zoo.types import Pair

if TYPE_CHECKING:
    from zoo.checks.expected import ExpectedScores

logger = logging.getLogger(__name__)

DEMO = "bge-reranker-large_demo.txt"


def score_pairs(
    catalogue: Catalogue,
    settings: RunSettings,
    data_path: str | None,
    *,
    output: Path | None,
    as_json: bool,
    normalize: bool,
    style: Progress,
    expected: ExpectedScores | None = None,
) -> None:
    """Check the whole input, then score it and write a line for each input line as results come in.

    ``expected`` are scores that were computed before, which the new ones are compared with.
    """
    check_name(catalogue, settings.model)  # a misspelt name is an error before a large input is read
    destination: AbstractContextManager[TextIO | Stdout] = atomic_write(output) if output else nullcontext(Stdout())
    with ExitStack() as stack:
        source = stack.enter_context(
            read_pairs(data_path or str(bundled("datas") / DEMO), sys.stdin.buffer if sys.stdin else None)
        )
        total = source.check()
        handle = stack.enter_context(destination)
        reranker = stack.enter_context(Reranker.from_settings(settings, catalogue))
        scorer = stack.enter_context(reranker.exclusive())
        started = time.perf_counter()
        results = _scored_records(source, scorer)
        if output is None and is_terminal(sys.stdout) and style == "auto":
            style = "plain"  # results share the terminal with the bar
        escaped = output is None and not speaks_utf8()
        for record, logits in progress(results, total, "scored lines", style):
            line = _json_lines(record, logits, escaped) if as_json else _tecorigin_line(record, logits, normalize)
            handle.write(line)
            if expected is not None:
                expected.add(logits)
        handle.flush()
        _report(scorer, time.perf_counter() - started, reranker.max_length)
        if expected is not None:
            expected.report()


def _scored_records(source: PairSource, scorer: Scorer) -> Iterator[tuple[Record, list[float]]]:
    """Each record with a logit for each of its pairs. Only the records whose pairs are being scored are held."""
    waiting: deque[Record] = deque()

    def pairs() -> Iterator[Pair]:
        for record in source:
            waiting.append(record)
            yield from record.pairs

    logits: list[float] = []
    for _, logit in scorer.score(pairs()):
        logits.append(logit)
        if len(logits) == len(waiting[0].pairs):
            yield waiting.popleft(), logits
            logits = []


def _report(scorer: Scorer, seconds: float, max_length: int) -> None:
    """The closing line: nothing is cut without being counted."""
    stats = scorer.stats
    cut = f"{stats.passages_truncated} of {stats.pairs} passages cut to {max_length} tokens"
    if stats.queries_truncated:
        cut += f", {stats.queries_truncated} queries cut"
    logger.info("%d pairs in %.2f s, %.1f pairs/s; %s", stats.pairs, seconds, stats.pairs / max(seconds, 1e-9), cut)
    on_device = scorer.session.device_seconds
    if on_device is not None:
        logger.info("%.3f s of device time by the runtime's own counter, in %d batches", on_device, stats.batches)
    _report_unknown(stats)
    if stats.pairs > 1 and stats.lowest == stats.highest:
        logger.warning(
            "all %d scores are equal: the pairs are the same, or the model's classification head is not trained",
            stats.pairs,
        )


def _report_unknown(stats: RunStats) -> None:
    """A warning if the model's vocabulary does not know much of the input, or of some pairs."""
    if stats.unknown_share > MUCH_UNKNOWN:
        logger.warning(
            "%.0f %% of this input is unknown to the model's vocabulary: it cannot read it, and the scores say little",
            100 * stats.unknown_share,
        )
    elif stats.worst_pair is not None:
        share, pair = stats.worst_pair
        logger.warning(
            "%d of %d pairs are more than %.0f %% unknown to the model's vocabulary; the most, %.0f %%, is the one of the query '%s'",
            stats.unreadable_pairs, stats.pairs, 100 * MUCH_OF_A_PAIR, 100 * share, pair.query[:60],
        )  # fmt: skip


def _tecorigin_line(record: Record, logits: Sequence[float], normalize: bool) -> str:
    """Tecorigin's form: the line's pairs and their score by Python's own repr (a list of scores for several pairs)."""
    values = [sigmoid(logit) if normalize else logit for logit in logits]
    pairs = [[pair.query, pair.passage] for pair in record.pairs]
    return f"{pairs!r}-相似度:{values[0] if len(values) == 1 else values!r}\n"


def _json_lines(record: Record, logits: Sequence[float], escaped: bool) -> str:
    return "".join(
        json.dumps(
            {
                "query": pair.query,
                "passage": pair.passage,
                **({"instruction": pair.instruction} if pair.instruction else {}),
                "logit": logit,
                "score": sigmoid(logit),
            },
            ensure_ascii=escaped,
        )
        + "\n"
        for pair, logit in zip(record.pairs, logits, strict=True)
    )
