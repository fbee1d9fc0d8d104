"""``zoo run --mode bench``, and ``zoo bench --compare`` on two of its reports."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import click

from zoo.cli.common import check_folder_of, json_option, print_json, print_table, verbosity_options
from zoo.cli.valid_options import ValidChoices
from zoo.settings import RunSettings
from zoo.types import Precision

if TYPE_CHECKING:
    from zoo.registry.catalogue import Catalogue

logger = logging.getLogger(__name__)


@click.command("bench")
@click.option(
    "--compare",
    "reports",
    type=click.Path(path_type=Path),
    nargs=2,
    required=True,
    metavar="FIRST SECOND",
    help="Two reports; the verdicts are on the second.",
)
@json_option
@verbosity_options
def command(*, reports: tuple[Path, Path], as_json: bool) -> None:
    """Compare two reports of 'zoo run --mode bench'.

    A difference within the spread of the rounds, or below 2 %, is called the same. On a machine with other programs
    at work it has to be larger.
    """
    from zoo.bench import compare, read_report

    found = compare(*map(read_report, reports))
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(
        ["target", "shape", "pairs/s", "then", "ratio", "95 % between", "waited", "verdict"],
        [
            [
                each.target, each.shape, f"{each.first:.1f}", f"{each.second:.1f}", f"{each.ratio:.3f}",
                f"{each.low:.3f} and {each.high:.3f}", f"{each.waiting:.0%}", each.verdict,
            ]
            for each in found
        ],
    )  # fmt: skip


def measure(
    catalogue: Catalogue, settings: RunSettings, choices: ValidChoices, *, output: Path | None, as_json: bool
) -> None:
    """Measure every target side by side, write the report, and print a table of it."""
    from zoo.bench import BenchRequest, Shape, bench
    from zoo.bench.plot import figure_class, plot
    from zoo.files import write_json
    from zoo.reranker import Reranker

    request = BenchRequest(
        shapes=None if choices.shapes is None else [Shape(*shape) for shape in dict.fromkeys(choices.shapes)],
        seconds=choices.duration,
        iterations=choices.iterations,
        rounds=choices.rounds,
    )
    check_folder_of(output)
    check_folder_of(choices.plot)
    if choices.plot is not None:
        figure_class()
    with ExitStack() as stack:
        rerankers = {
            name: stack.enter_context(Reranker.from_settings(each, catalogue))
            for name, each in _targets(settings).items()
        }
        report = bench(rerankers, request)
    if output is not None:
        write_json(output, report)
    if choices.plot is not None:
        plot(report, choices.plot)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    logger.info("a matrix product: %.1f GFLOP/s", report["matrix_product_gflops"])


def _targets(settings: RunSettings) -> dict[str, RunSettings]:
    """The settings for each of the devices that ``--target`` names: ``cpu,openvino/bf16``."""
    found: dict[str, RunSettings] = {}
    for name in (settings.target or "").split(","):
        device, _, precision = name.strip().partition("/")
        if precision and precision not in get_args(Precision):
            raise click.UsageError(
                f"--target {name}: '{precision}' is not a precision ({', '.join(get_args(Precision))})."
            )
        chosen = cast("Precision", precision) if precision else settings.precision
        if name.strip() in found:
            raise click.UsageError(f"--target names {name.strip()} twice.")
        found[name.strip() or "default"] = replace(settings, target=device or None, precision=chosen)
    return found


def _print_report(report: Mapping[str, Any]) -> None:
    rows = [
        [
            entry["target"], entry["shape"], *(f"{entry['latency_ms'][key]:.2f}" for key in ("p50", "p90", "p95", "p99")),
            f"{entry['pairs_per_second']:.1f}", f"{entry['tokens_per_second']:.0f}", _share(entry),
        ]
        for entry in report["results"]
    ]  # fmt: skip
    print_table(["target", "shape", "p50 ms", "p90", "p95", "p99", "pairs/s", "tokens/s", "GFLOP/s"], rows)


def _share(entry: Mapping[str, Any]) -> str:
    if "gflops" not in entry:
        return ""
    return f"{entry['gflops']:.1f} ({entry['share_of_matrix_product']:.0%} of a matrix product)"
