"""A data set's candidates reranked and evaluated, with its journal, its files and its report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.checkpoints.resolve import check_name, short_name
from zoo.errors import ZooError
from zoo.evaluation.datasets import Collection, DataRequest, find_layouts, open_collections
from zoo.evaluation.html import page
from zoo.evaluation.journal import Journal
from zoo.evaluation.longdoc import LongDoc
from zoo.evaluation.metrics import MetricHooks
from zoo.evaluation.notes import notes, table
from zoo.evaluation.reading import Reading
from zoo.evaluation.references import reference_checks
from zoo.evaluation.report import document
from zoo.evaluation.rerank import Result, Scored, collect, identity, judge, overall, rerank
from zoo.evaluation.result_files import make_folders, write_files
from zoo.evaluation.timing import Stopwatch, Timing
from zoo.files import atomic_write, write_json
from zoo.registry.catalogue import Catalogue
from zoo.registry.participants import Participant
from zoo.reranker import Reranker
from zoo.scoring.scorer import RunStats, Scorer
from zoo.settings import RunSettings
from zoo.types import Run

logger = logging.getLogger(__name__)

RESULTS = Path("zoo-results")

Shown = Callable[[Iterator[Scored], Collection], Iterator[Scored]]
"""Passes the scored candidates of a collection on, and may show how far they are."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What to evaluate on (``data``), and how. ``output`` None is ``zoo-results/MODEL/DATASET``.

    ``long_doc`` is what becomes of a passage that is longer than the model reads: cut (``truncate``), or scored in pieces whose best
    (``max``) or mean score (``mean``) counts.
    """

    data: DataRequest = field(default_factory=DataRequest)
    output: Path | None = None
    overwrite: bool = False
    """Throw away the scores that an earlier run left in the output folder."""
    long_doc: LongDoc = "truncate"
    normalize: bool = False
    """Show scores as sigmoid(logit) in the page."""
    rows_given: bool = True
    """Whether the settings' batch size is to be used where the session has a budget of its own."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A finished evaluation. ``report`` is the content of report.json; ``files`` are those that were written, below ``output``.

    ``results`` has the metrics of each language, ``timing`` the seconds of each stage, ``stats`` counts of pairs, batches and tokens.
    """

    output: Path
    results: Sequence[Result]
    report: dict[str, Any]
    timing: Timing
    stats: RunStats
    files: Sequence[Path]
    lines: Sequence[str]
    """Table and notes, for people."""

    @property
    def ndcg_at_10(self) -> float:
        """nDCG@10, the mean over the languages, as trec_eval computes it."""
        return overall(self.results)


def evaluate(
    settings: RunSettings,
    request: EvaluationRequest | None = None,
    *,
    catalogue: Catalogue | None = None,
    shown: Shown = lambda scored, collection: scored,
    opened: Callable[[RunSettings, Catalogue], Reranker] = Reranker.from_settings,
) -> Evaluation:
    """Check the whole data set, rerank its candidates, write the files, and give all that was measured.

    ``opened`` opens the model. An interrupted run is continued from the journal in the output folder. Raises ZooError; what was scored
    until then is kept.
    """
    request = request or EvaluationRequest()
    catalogue = catalogue or Catalogue.installed()
    check_name(catalogue, settings.model)  # a misspelt name is an error before gigabytes are read
    left_out = [f"the plugin {each.label} takes no part: {each.error}" for each in catalogue.plugins if each.error]
    for sentence in left_out:  # a metric of its own would be missing without a word
        logger.warning("%s", sentence)
    layouts = find_layouts(request.data)
    output = request.output or RESULTS / short_name(settings.model) / layouts[0].dataset
    data = replace(request.data, work=output)
    started = time.perf_counter()
    collections = open_collections(layouts, data)
    with opened(settings, catalogue) as reranker:
        by_budget = not request.rows_given and reranker.session.shape_rule.tokens is not None
        rows = None if by_budget else settings.batch_size  # the device knows how many long pairs fit its memory
        # What cannot be written is found out before anything is scored.
        make_folders(output, reranker.card.name, collections)
        header = identity(reranker, rows, data, collections, request.long_doc)
        watch = Stopwatch()
        pipeline = reranker.pipeline.extended(Participant("metrics", MetricHooks()), Participant("stopwatch", watch))
        with (
            Journal.open(output / "journal.jsonl", header, overwrite=request.overwrite) as journal,
            reranker.exclusive(pipeline=pipeline, batch_size=rows or 0, repeatable=True, recall=journal) as scorer,
        ):
            if len(journal):
                logger.info("continuing from %s: %d batches are there", journal.path, len(journal))
            scored = _rerank_all(scorer, collections, request.long_doc, reranker.max_length, shown, journal)
            timing = Timing.of(
                time.perf_counter() - started, watch, scorer.stats, journal.recalled, journal.recalled_rows
            ).by_counter(reranker.session.device_seconds)
        with _kept_in(journal):
            results = [
                judge(pipeline, collection, run, chunks, reading, reranker.card)
                for collection, (run, chunks, reading) in zip(collections, scored, strict=True)
            ]
            results[0] = replace(results[0], warnings=(*left_out, *results[0].warnings))
            checks = reference_checks(reranker.card, results, header, settings.model_options)
            report = document(
                header,
                results,
                checks,
                scorer.stats,
                timing,
                watch.batches,
                _device(reranker),
                reranker.pipeline.owners,
            )
            files = [
                *write_files(output, reranker.card.name, results),
                *_write_report(output, report, results, request.normalize),
            ]
    return Evaluation(
        output=output,
        results=results,
        report=report,
        timing=timing,
        stats=scorer.stats,
        files=files,
        lines=[*table(results), *notes(results, checks, scorer.stats, timing)],
    )


def _rerank_all(
    scorer: Scorer,
    collections: Sequence[Collection],
    long_doc: LongDoc,
    max_length: int,
    shown: Shown,
    journal: Journal,
) -> list[tuple[Run, int, Reading]]:
    done = []
    try:
        for collection in collections:
            scorer.stats.by_query = {}
            run, chunks = collect(collection, shown(rerank(scorer, collection, long_doc, max_length), collection))
            done.append((run, chunks, Reading.of(scorer.stats.by_query, collection.queries)))
        return done
    except KeyboardInterrupt:
        logger.warning(
            "stopped: %d batches of scores are kept in %s; the same command goes on from there",
            len(journal),
            journal.path,
        )
        raise


@contextmanager
def _kept_in(journal: Journal) -> Iterator[None]:
    """What cannot be written inside the block says where the scores are."""
    try:
        yield
    except ZooError as error:
        raise ZooError(
            f"{error}. The scores are kept in {journal.path}; the same command goes on from there"
        ) from error


def _write_report(output: Path, report: dict[str, Any], results: Sequence[Result], normalize: bool) -> list[Path]:
    paths = [output / "report.json", output / "report.html"]
    write_json(paths[0], report, quiet=True)
    with atomic_write(paths[1], quiet=True) as handle:
        handle.write(page(report, results, normalize=normalize))
    return paths


def _device(reranker: Reranker) -> dict[str, str]:
    return {
        "name": reranker.device_name,
        "precision": reranker.precision,
        **({"model_file": str(reranker.artifact.model)} if reranker.artifact else {}),
        **({"precision_reason": reranker.precision_reason} if reranker.precision_reason else {}),
        **reranker.device_details(),
    }
