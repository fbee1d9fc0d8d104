"""``zoo run --mode multi``: files of pairs into files of scores."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from zoo.checkpoints.resolve import check_name
from zoo.cli.common import print_json, print_table
from zoo.cli.progress import Progress, progress
from zoo.cli.valid_options import ValidChoices
from zoo.multi import Columns, InputFile, MultiRequest, MultiResult, find_inputs, score_files
from zoo.registry.catalogue import Catalogue
from zoo.reranker import Reranker
from zoo.scoring.scorer import ScoredPair
from zoo.settings import RunSettings

logger = logging.getLogger(__name__)


def score_folder(
    catalogue: Catalogue,
    settings: RunSettings,
    data_path: Sequence[str],
    output: Path,
    choices: ValidChoices,
    *,
    style: Progress,
    as_json: bool,
    actors: int | None = None,
) -> None:
    """Score every file, then print a line for each. Exits with 1 if one of them failed. ``actors`` are those of a cluster."""
    check_name(catalogue, settings.model)  # a misspelt name is reported before files are looked for
    inputs = find_inputs(data_path, output)
    request = MultiRequest(
        output=output,
        form=choices.form,
        columns=Columns(choices.columns.get("query", ""), choices.columns.get("passage", "")),
        top_k=choices.top_k,
        batch_size=settings.batch_size,
        overwrite=choices.overwrite,
    )

    def shown(scored: Iterator[ScoredPair], file: InputFile) -> Iterator[ScoredPair]:
        return progress(scored, None, f"{file.name}: pairs", style)

    try:
        if choices.cluster is not None:
            result = _score_on_cluster(catalogue, settings, inputs, request, choices.cluster, actors, style)
        else:
            with Reranker.from_settings(settings, catalogue) as reranker:
                result = score_files(reranker, inputs, request, shown=shown)
    except KeyboardInterrupt:
        logger.warning("stopped: what was scored is kept in %s; the same command goes on from there", output)
        raise
    if as_json:
        print_json(result.report)
    else:
        _print_files(result)
    totals = result.report["totals"]
    logger.info(
        "%d pairs, %d of them cut to the length limit; files: %d scored, %d kept, %d failed; in %s",
        totals["pairs"], totals["truncated"], totals["scored"], totals["kept"], totals["failed"], output,
    )  # fmt: skip
    if result.failed:
        sys.exit(1)


def _score_on_cluster(
    catalogue: Catalogue,
    settings: RunSettings,
    inputs: Sequence[InputFile],
    request: MultiRequest,
    address: str,
    actors: int | None,
    style: Progress,
) -> MultiResult:
    from zoo import ray

    folders = sorted({file.path.resolve().parent for file in inputs})
    with ray.connected(address):
        cluster = ray.Cluster.prepare(settings, catalogue, actors=actors, read=folders)
        return ray.score_files(
            cluster, inputs, request, shown=lambda rows: progress(rows, None, "blocks of about 1,000 pairs", style)
        )


def _print_files(result: MultiResult) -> None:
    rows = [[file.name, file.status, str(file.pairs), file.output or file.error] for file in result.files]
    print_table(["file", "status", "pairs", "result"], rows)
