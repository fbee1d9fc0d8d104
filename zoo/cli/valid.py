"""``zoo run --mode valid``: a data set's candidates reranked, and what the metrics say."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from zoo.cli.boundary import StdoutError, out
from zoo.cli.common import print_json
from zoo.cli.progress import Progress, progress
from zoo.errors import ZooError
from zoo.evaluation.datasets import Collection
from zoo.evaluation.harness import Evaluation, EvaluationRequest, evaluate
from zoo.evaluation.rerank import Scored
from zoo.registry.catalogue import Catalogue
from zoo.reranker import Reranker
from zoo.settings import RunSettings

logger = logging.getLogger(__name__)


def evaluate_and_print(
    catalogue: Catalogue,
    settings: RunSettings,
    request: EvaluationRequest,
    *,
    style: Progress,
    as_json: bool,
    cluster: str | None = None,
    actors: int | None = None,
) -> None:
    """Evaluate, then print Tecorigin's lines, or the report. The files are written before anything is printed.

    ``cluster`` is the address of one that scores, with so many ``actors``.
    """

    def shown(scored: Iterator[Scored], collection: Collection) -> Iterator[Scored]:
        return progress(scored, collection.pairs, f"{collection.label} candidates", style)

    if cluster is None:
        found = evaluate(settings, request, catalogue=catalogue, shown=shown)
    else:
        from zoo import ray

        def opened(settings: RunSettings, catalogue: Catalogue) -> Reranker:
            prepared = ray.Cluster.prepare(settings, catalogue, actors=actors)
            return ray.open_remote(prepared, settings, catalogue)

        with ray.connected(cluster):
            found = evaluate(settings, request, catalogue=catalogue, shown=shown, opened=opened)
    for line in [*found.lines, f"files: {found.output}"]:
        logger.info("%s", line)
    try:
        if as_json:
            print_json(found.report)
        else:
            out("\n".join(closing_lines(found)))
    except (StdoutError, BrokenPipeError) as error:
        raise ZooError(f"the results could not be printed ({error}); they are whole in {found.output}") from error


def closing_lines(found: Evaluation) -> list[str]:
    """Tecorigin's last lines, to the letter."""
    collections = [result.collection for result in found.results]
    return [
        found.timing.summary,
        f"{collections[0].dataset} evaluation on {[collection.language for collection in collections]} completed.",
        "Start computing metrics.",
        f"eval_metric: {found.ndcg_at_10}",
    ]
