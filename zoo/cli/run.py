"""``zoo run``"""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.common import json_option, verbosity_options
from zoo.cli.precision import allow_pickle_option, chosen_precision, precision_option
from zoo.settings import DEFAULT_LENGTH, RunSettings
from zoo.types import Precision


class KeyValue(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """``KEY=VALUE``"""

    name = "KEY=VALUE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, separator, text = str(value).partition("=")
        if not (key and separator):
            self.fail(f"'{value}' is not of the form KEY=VALUE", param, ctx)
        return key.replace("-", "_"), text


class Rows(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # see KeyValue
    """A positive number of rows, or ``auto``, which is 0."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value in ("auto", 0):
            return 0
        try:
            rows = int(str(value))
        except ValueError:
            rows = 0
        if rows < 1:
            self.fail(f"'{value}' is neither a positive number nor 'auto'", param, ctx)
        return rows


@click.command("run")
@click.argument("model")
@click.option(
    "--mode", type=click.Choice(["single"]), default="single", show_default=True, help="single: a score for each pair."
)
@click.option("--ckpt", type=click.Path(path_type=Path), metavar="FILE", help="ONNX file to run; skips the export.")
@click.option(
    "--config-path",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with tokenizer and config, or a whole checkpoint. Default: the first place that has the model.",
)
@click.option(
    "--data-path",
    metavar="FILE",
    help="Pairs to score, one a line: a Python literal, JSON, or two tab-separated columns; '-' reads stdin. Default: the panda demo.",
)
@click.option(
    "--batch-size",
    type=Rows(),
    default=1,
    show_default=True,
    help="Pairs a batch; 'auto' lets the device choose by the pairs' length, which is fastest for large inputs.",
)
@click.option(
    "--shape",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help=f"Length limit of query and passage together, in tokens.  [default: {DEFAULT_LENGTH}]",
)
@click.option(
    "--half/--no-half",
    default=None,
    help="The same as --precision fp16, or fp32.",
)
@precision_option
@allow_pickle_option
@click.option(
    "--target",
    metavar="DEVICE",
    help="Device to run on, see 'zoo devices'; 'onnx' is the vendor's name of cpu. Default: the best one available, SDAA first.",
)
@click.option("--normalize", is_flag=True, help="Print sigmoid(logit), between 0 and 1, in place of the logit.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write results to FILE in place of stdout.",
)
@click.option("--offline", is_flag=True, help="Never touch the network.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads to compute with. Default: what this process may use.",
)
@click.option(
    "--device-option",
    "device_options",
    type=KeyValue(),
    multiple=True,
    help="An option of the device itself, repeatable. cpu: arena=on|off, optimization=all|extended|basic|off, lanes=auto|one|all.",
)
@json_option
@verbosity_options
def command(
    model: str,
    mode: str,
    ckpt: Path | None,
    config_path: Path | None,
    data_path: str | None,
    batch_size: int,
    shape: int | None,
    half: bool | None,
    precision: Precision | None,
    allow_pickle: bool,
    target: str | None,
    normalize: bool,
    output: Path | None,
    offline: bool,
    threads: int | None,
    device_options: tuple[tuple[str, str], ...],
    as_json: bool,
) -> None:
    """Score pairs with MODEL, or evaluate it on a data set.

    Results go to stdout, everything else to stderr.
    """
    settings = RunSettings(
        model=model,
        ckpt=ckpt,
        config_path=config_path,
        target=target,
        precision=chosen_precision(half, precision),
        allow_pickle=allow_pickle,
        batch_size=batch_size or None,
        max_length=shape,
        threads=threads,
        offline=offline,
        device_options=dict(device_options),
    )
    from zoo.cli.single import score_pairs

    score_pairs(settings, data_path, output=output, as_json=as_json, normalize=normalize)
