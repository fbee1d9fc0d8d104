"""``zoo run --mode valid``: a data set's candidates reranked, and what the metrics say."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from zoo.cli.common import print_json
from zoo.cli.progress import Progress, progress
from zoo.evaluation.datasets import Collection, DataRequest, find_layouts, open_collections
from zoo.evaluation.journal import Journal, JournalHooks
from zoo.evaluation.longdoc import LongDoc
from zoo.evaluation.report import Timing, document, notes, overall, reference_checks, table, write_files
from zoo.evaluation.rerank import Result, Scored, collect, identity, judge, rerank
from zoo.evaluation.timing import Stopwatch
from zoo.files import atomic_write
from zoo.registry.catalogue import Catalogue
from zoo.reranker import OpenRun, open_run
from zoo.settings import RunSettings
from zoo.types import Run

logger = logging.getLogger(__name__)

RESULTS = Path("zoo-results")


@dataclass(frozen=True, kw_only=True)
class ValidOptions:
    """How ``--mode valid`` goes about it."""

    output: Path | None = None
    overwrite: bool = False
    long_doc: LongDoc = "truncate"
    progress: Progress = "auto"
    as_json: bool = False
    normalize: bool = False
    rows_given: bool = False
    """Whether the user said how many pairs a batch has."""


def evaluate(settings: RunSettings, request: DataRequest, options: ValidOptions) -> None:
    """Check the whole data set, rerank it, then print the vendor's lines and write the files."""
    catalogue = Catalogue.installed()
    catalogue.card(settings.model)  # a misspelt name is said before gigabytes are read
    layouts = find_layouts(request)
    output = options.output or RESULTS / settings.model / layouts[0].dataset
    request = replace(request, work=output)
    started = time.perf_counter()
    collections = open_collections(layouts, request)
    with open_run(catalogue, settings) as run:
        if not options.rows_given and run.scorer.session.shape_rule.tokens is not None:
            run.scorer.batch_size = (
                None  # the device knows what fits: 32 long pairs at once cost it memory and gain nothing
            )
        header = identity(run, settings, request, collections, options.long_doc)
        with Journal.open(output / "journal.jsonl", header, overwrite=options.overwrite) as journal:
            if len(journal):
                logger.info("going on with %s: %d batches are there", journal.path, len(journal))
            run.scorer.repeatable = True  # the journal knows batches by what is in them
            keeper, watch = JournalHooks(journal), Stopwatch()
            run.pipeline.join("stopwatch", watch)
            run.pipeline.join("journal", keeper)
            reranked = _rerank_all(run, collections, options, journal)
            timing = Timing.of(
                time.perf_counter() - started, watch, run.scorer.stats, journal.recalled, journal.recalled_rows
            ).by_counter(getattr(run.scorer.session, "device_seconds", None))
        _tell(run, collections, reranked, timing, watch, header, output, options)


def _rerank_all(
    run: OpenRun, collections: Sequence[Collection], options: ValidOptions, journal: Journal
) -> list[tuple[Run, int]]:
    try:
        return [
            collect(collection, _shown(rerank(run, collection, options.long_doc), collection, options))
            for collection in collections
        ]
    except KeyboardInterrupt:
        logger.warning(
            "stopped: %d batches of scores are kept in %s; the same command goes on from there",
            len(journal),
            journal.path,
        )
        raise


def _shown(scored: Iterator[Scored], collection: Collection, options: ValidOptions) -> Iterator[Scored]:
    return progress(scored, collection.pairs, f"{collection.label} candidates", options.progress)


def _tell(
    run: OpenRun,
    collections: Sequence[Collection],
    reranked: Sequence[tuple[Run, int]],
    timing: Timing,
    watch: Stopwatch,
    header: dict[str, Any],
    output: Path,
    options: ValidOptions,
) -> None:
    """The vendor's four parts as they come about, the files, and the rest on stderr."""
    languages = [collection.language for collection in collections]
    _say(timing.summary, options)
    _say(f"{collections[0].dataset} evaluation on {languages} completed.", options)
    _say("Start computing metrics.", options)
    results = [
        judge(run.pipeline, collection, scores, chunks)
        for collection, (scores, chunks) in zip(collections, reranked, strict=True)
    ]
    write_files(output, run.card.name, results)
    checks = reference_checks(run.card, results, limited=header["limit"] is not None)
    report = document(header, results, checks, run.scorer.stats, timing, watch.batches, _device(run))
    with atomic_write(output / "report.json") as handle:
        json.dump(report, handle, indent=2, ensure_ascii=False)
    _write_html(output, report, results, options)
    _say(f"eval_metric: {overall(results)}", options)
    if options.as_json:
        print_json(report)
    for line in [*table(results), *notes(results, checks, run.scorer.stats, timing), f"files: {output}"]:
        logger.info("%s", line)


def _write_html(output: Path, report: dict[str, Any], results: Sequence[Result], options: ValidOptions) -> None:
    from zoo.evaluation.html import page

    with atomic_write(output / "report.html") as handle:
        handle.write(page(report, results, normalize=options.normalize))


def _device(run: OpenRun) -> dict[str, str]:
    available = run.device.probe()
    return {
        "name": run.device.name,
        "precision": run.precision,
        "model_file": str(run.artifact.model),
        **({"precision_reason": run.precision_reason} if run.precision_reason else {}),
        **available.details,
    }


def _say(line: str, options: ValidOptions) -> None:
    if not options.as_json:
        click.echo(line)
