"""``zoo simplify``"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.boundary import out
from zoo.cli.common import catalogue_of, verbosity_options
from zoo.cli.numbers import FloatRange, IntRange
from zoo.cli.tecorigin import TecoriginCommand


@click.command("simplify", cls=TecoriginCommand)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.onnx", required=False)
@click.option("--onnx", type=click.Path(path_type=Path), metavar="FILE.onnx", help="The same as the argument.")
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
    type=IntRange(min=1),
    default=1800,
    show_default=True,
    metavar="SECONDS",
    help="Stop onnxsim after this long.",
)
@click.option(
    "--memory",
    type=FloatRange(min=0.1),
    default=16.0,
    show_default=True,
    metavar="GB",
    help="Stop onnxsim when it holds more than this.",
)
@click.option(
    "--need-fp16", is_flag=True, hidden=True, help="Refused: no float16 file is made, see --half of 'zoo run'."
)
@verbosity_options
def command(
    file: Path | None,
    onnx: Path | None,
    save_name: Path,
    save_as_external_data: bool,
    timeout: int,
    memory: float,
    need_fp16: bool,
) -> None:
    """Simplify an ONNX file with onnxsim, and prove that it computes the same.

    Inputs keep their dynamic axes. The result is checked by onnx, opened in ONNX Runtime and compared with FILE.onnx on
    random inputs; a file that differs is not kept. Prints the name of the file written.
    """
    if file is not None and onnx is not None and file != onnx:
        raise click.UsageError(f"FILE.onnx is '{file}' and --onnx is '{onnx}': name one file.")
    source = file or onnx
    if source is None:
        raise click.UsageError("Missing argument 'FILE.onnx'.")
    if need_fp16:
        raise click.UsageError(
            "--need-fp16: no file that computes in float16 is made here. SDAA's compiler makes float16 of the float32 file: "
            "'zoo run MODEL --ckpt OUT.onnx --half --target sdaa'."
        )
    from zoo.export.simplify import simplify

    simplify(
        catalogue_of(click.get_current_context()),
        source,
        save_name,
        external_data=save_as_external_data,
        timeout=timeout,
        memory=int(memory * 1e9),
    )
    out(str(save_name))
