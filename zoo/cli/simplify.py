"""``zoo simplify``"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.boundary import out
from zoo.cli.common import catalogue_of, verbosity_options


@click.command("simplify")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.onnx")
@click.option(
    "--save-name",
    type=click.Path(path_type=Path),
    metavar="OUT.onnx",
    required=True,
    help="File to write; one that is there is replaced when the new one is whole.",
)
@click.option(
    "--save-as-external-data",
    is_flag=True,
    help="Keep the weights in OUT.onnx.data. Above 2 GB they always are.",
)
@click.option(
    "--timeout",
    type=click.IntRange(min=1),
    default=1800,
    show_default=True,
    metavar="SECONDS",
    help="Stop onnxsim after this long.",
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0.1),
    default=16.0,
    show_default=True,
    metavar="GB",
    help="Stop onnxsim when it holds more than this.",
)
@verbosity_options
def command(file: Path, save_name: Path, save_as_external_data: bool, timeout: int, memory: float) -> None:
    """Simplify an ONNX file with onnxsim, and prove that it computes the same.

    Inputs keep their dynamic axes. The result is checked by onnx, opened in ONNX Runtime and compared with FILE.onnx on
    random inputs; a file that differs is not kept. Prints the name of the file written.
    """
    from zoo.export.simplify import simplify

    simplify(
        catalogue_of(click.get_current_context()),
        file,
        save_name,
        external_data=save_as_external_data,
        timeout=timeout,
        memory=int(memory * 1e9),
    )
    out(str(save_name))
