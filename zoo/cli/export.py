"""``zoo export``"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.boundary import out
from zoo.cli.common import catalogue_of, json_option, print_json, print_table, verbosity_options
from zoo.cli.model_options import model_options
from zoo.cli.numbers import IntRange
from zoo.errors import InputError
from zoo.settings import ExportSettings, RunSettings

if TYPE_CHECKING:
    from zoo.checks.precision import Measured
    from zoo.registry.catalogue import Catalogue
    from zoo.types import Artifact


@click.command("export")
@click.argument("model")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Copy the model file and the tokenizer into a new folder, to run from or to take elsewhere. Default: the cache only.",
)
@click.option(
    "--link",
    is_flag=True,
    help="With --output: the folder gets hard links to the checkpoint's weights in place of copies. They must lie on one disk.",
)
@click.option(
    "--optimize",
    type=click.Choice(["O1", "O2", "none"]),
    help="Graph level in place of what the device wants: O1 as optimum does it, O2 with transformer layers fused, or none.",
)
@click.option(
    "--sequence-length",
    type=IntRange(min=1),
    metavar="TOKENS",
    help="Length to trace and validate with; the graph takes any length whatever is given. 8192 takes 17 GB of memory.",
)
@click.option("--batch-size", type=IntRange(min=1), metavar="ROWS", help="Batch to trace and validate with.")
@click.option("--monolith", is_flag=True, help="Tell optimum to write one graph, which for a reranker it does anyway.")
@click.option(
    "--quality",
    metavar="DIR",
    help="Then measure what the precision does to scores and nDCG@10 on a data set, in any layout that --mode valid reads "
    "(mldr-mini comes with zoo), and keep the report for --precision auto.",
)
@click.option(
    "--quality-queries",
    type=IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Queries of the data set to score, 20 candidates each, in both precisions.",
)
@model_options(
    leave_out=("ckpt", "max_length", "query_max_length", "threads", "workers"),
    kind=ExportSettings,
    config_path="Checkpoint folder with config, tokenizer and weights. Default: the first place that has the model.",
    target="Device to make the file for; it need not be on this machine.",
)
@json_option
@verbosity_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    settings: ExportSettings,
    output: Path | None,
    link: bool,
    optimize: str | None,
    sequence_length: int | None,
    batch_size: int | None,
    monolith: bool,
    quality: str | None,
    quality_queries: int,
    as_json: bool,
) -> None:
    """Make the ONNX file of MODEL that a device runs, and prove it against the weights.

    Prints the file's path. 'zoo run' does the same by itself when no file is there.

    \b
    The recipe of Tecorigin's page, to the letter:
      zoo export bge-reranker-v2-m3 --optimize O1 --sequence-length 8192 --batch-size 1 --monolith
    """
    if quality and settings.precision in (None, "fp32", "auto"):
        raise click.UsageError("--quality compares a precision with fp32: name it with --precision fp16, bf16 or int8")
    if link and output is None:
        raise click.UsageError("--link says how --output is filled: name a folder with --output")
    from zoo.export.export import export

    shapes: dict[str, str | int | bool] = {
        name: value for name, value in (("sequence_length", sequence_length), ("batch_size", batch_size)) if value
    }
    if monolith:
        shapes["monolith"] = True
    settings = replace(settings, output=output, link=link, optimize=optimize, shapes=shapes)
    catalogue = catalogue_of(ctx)
    if not quality:
        _show(export(catalogue, settings), None, as_json)
        return
    # What a run opens is measured. It may need no export at all; if it does, measuring makes it.
    made = export(catalogue, settings) if output or optimize or shapes else None
    measured = _quality(catalogue, settings, quality, quality_queries)
    _show(made or measured.artifact, measured, as_json)


def _show(artifact: Artifact, measured: Measured | None, as_json: bool) -> None:
    """The file's path, and the report if there is one."""
    reports = [asdict(quality) for quality in measured.report.collections] if measured else []
    if as_json:
        found = {"quality_report": str(measured.path), "quality": reports} if measured else {}
        print_json({"path": str(artifact.model), **_manifest(artifact), **found})
        return
    out(str(artifact.model))
    if reports:
        columns = list(reports[0])
        print_table(columns, [[_cell(report[column]) for column in columns] for report in reports])


def _manifest(artifact: Artifact) -> dict[str, Any]:
    """What is known of the file; one that came with the checkpoint may have no manifest."""
    from zoo.export import manifest

    try:
        return manifest.as_builtins(manifest.read(artifact.model.parent))
    except InputError:
        return {"precision": artifact.precision, "source": artifact.origin}


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _quality(catalogue: Catalogue, settings: ExportSettings, data: str, queries: int) -> Measured:
    """The report on what a run in this precision opens."""
    from zoo.checks.precision import measure
    from zoo.evaluation.datasets import MINIATURE, DataRequest

    run = RunSettings(**{field.name: getattr(settings, field.name) for field in fields(RunSettings)})
    request = DataRequest(
        data_path=None if data == MINIATURE else Path(data), limit=queries, top_k=20, offline=settings.offline
    )
    return measure(catalogue, run, request)
