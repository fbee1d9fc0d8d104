"""``zoo run --mode valid``: a data set's candidates reranked, and what the metrics say."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import click

from zoo.cli.common import print_json
from zoo.cli.progress import Progress, progress
from zoo.evaluation.datasets import Collection
from zoo.evaluation.harness import EvaluationRequest, evaluate
from zoo.evaluation.rerank import Scored
from zoo.registry.catalogue import Catalogue
from zoo.settings import RunSettings

logger = logging.getLogger(__name__)


def evaluate_and_tell(
    catalogue: Catalogue, settings: RunSettings, request: EvaluationRequest, *, style: Progress, as_json: bool
) -> None:
    """Evaluate, then print Tecorigin's lines, or the report. The files are written before anything is printed."""

    def shown(scored: Iterator[Scored], collection: Collection) -> Iterator[Scored]:
        return progress(scored, collection.pairs, f"{collection.label} candidates", style)

    found = evaluate(settings, request, catalogue=catalogue, shown=shown)
    collections = [result.collection for result in found.results]
    if as_json:
        print_json(found.report)
    else:
        languages = [collection.language for collection in collections]
        click.echo(found.timing.summary)
        click.echo(f"{collections[0].dataset} evaluation on {languages} completed.")
        click.echo("Start computing metrics.")
        click.echo(f"eval_metric: {found.ndcg_at_10}")
    for line in [*found.lines, f"files: {found.output}"]:
        logger.info("%s", line)
