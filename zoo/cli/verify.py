"""``zoo verify``"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from zoo.cli.boundary import out, tell
from zoo.cli.common import catalogue_of, check_folder_of, json_option, print_json, print_table, verbosity_options
from zoo.cli.device_options import ComparingCommand
from zoo.cli.model_options import model_options
from zoo.cli.numbers import FloatRange, IntRange
from zoo.cli.precision import chosen_precision
from zoo.cli.progress import Progress, progress_option
from zoo.cli.progress import progress as show_progress
from zoo.cli.threads import bound_tokenizer
from zoo.settings import RunSettings


@click.command("verify", cls=ComparingCommand)
@click.argument("model")
@click.option(
    "--data-path",
    metavar="PATH",
    help="Pairs to score in place of the bundled ones, in any form 'zoo run' reads; or the folder of a labelled data set, to compare "
    "the metric too. Default: bundled pairs, and mldr-mini where the model's card gives values for it.",
)
@click.option("--pairs-only", is_flag=True, help="Score pairs, and no data set.")
@click.option("--quick", is_flag=True, help="Score a few pairs, and no data set: does it work at all?")
@click.option("--limit", type=IntRange(min=1), metavar="N", help="Only the first N queries of a data set.")
@click.option(
    "--minutes",
    type=FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Cut data sets to as many queries as are expected to take so long; --limit is exact.",
)
@click.option("--batch-size", type=IntRange(min=1), default=8, show_default=True, help="Pairs a batch.")
@click.option("--half/--no-half", default=None, help="Verify in float16, or in float32. Default: the device's own.")
@click.option(
    "--torch/--no-torch", default=None, help="Compare with PyTorch too. Default: where torch and the weights are there."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the report goes.  [default: zoo-verify-MODEL-DEVICE.json]",
)
@model_options(leave_out=("query_max_length", "workers"))
@progress_option
@json_option
@verbosity_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    settings: RunSettings,
    data_path: str | None,
    pairs_only: bool,
    quick: bool,
    limit: int | None,
    minutes: float,
    batch_size: int,
    half: bool | None,
    torch: bool | None,
    output: Path | None,
    compare: tuple[str, tuple[str, ...]] | None,
    progress: Progress,
    as_json: bool,
) -> None:
    """Check that a device computes what it should, and write a report.

    Pairs are scored on the device and by ONNX Runtime on the CPU in float32, and if it is there by PyTorch; Tecorigin's figures are
    computed and held against their bounds. Exits with 1 if one is exceeded. A device option that is repeated (--pass-path on sdaa) has
    its values compared, and one of them recommended.
    """
    bound_tokenizer(settings.threads)
    settings = replace(
        settings, precision=chosen_precision(half, settings.precision, settings.ckpt), batch_size=batch_size
    )
    from zoo.checkpoints.resolve import short_name
    from zoo.checks.device import VerifyRequest, verify
    from zoo.files import write_json

    check_folder_of(output)
    request = VerifyRequest(
        data_path=data_path,
        torch=torch,
        pairs_only=pairs_only,
        quick=quick,
        limit=limit,
        minutes=minutes,
        compare=compare,
    )
    report = verify(
        catalogue_of(ctx), settings, request, lambda items, total, label: show_progress(items, total, label, progress)
    )
    path = output or Path(f"zoo-verify-{short_name(settings.model)}-{report['device']['name']}.json")
    write_json(path, report)
    if as_json:
        print_json(report)
    else:
        _show(report)
    tell(f"report: {path}")
    ctx.exit(0 if report["passed"] else 1)


def _show(report: dict[str, Any]) -> None:
    print_table(
        ("check", "measured", "reference", "deviation", "bound", ""),
        [
            [
                str(check["name"]),
                *(f"{check[column]:.6g}" for column in ("measured", "reference", "deviation", "bound")),
                "ok" if check["passed"] else "EXCEEDED",
            ]
            for check in report["checks"]
        ],
    )
    if "compared" in report:
        _show_comparison(report)
    out("passed" if report["passed"] else "FAILED")


def _show_comparison(report: dict[str, Any]) -> None:
    rows = report["compared"]
    out("")
    print_table(
        (rows[0]["option"], "output error", "pairs/s", ""),
        [
            [row["value"], "", "", f"fails: {row['error']}"]
            if "error" in row
            else [
                row["value"],
                f"{row['output_error']:.6g}",
                f"{row['pairs_per_second']:.1f}",
                "recommended"
                if row["value"] == report["recommended"]
                else ("" if row["passed"] else "exceeds a bound"),
            ]
            for row in rows
        ],
    )
    if report["recommended"] is None:
        out("none is recommended: each exceeds a bound")
