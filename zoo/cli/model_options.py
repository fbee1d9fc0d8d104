"""Options of every command that opens or exports a model."""

from __future__ import annotations

import click

from zoo.cli.device_options import KeyValue

exporter_option = click.option(
    "--exporter", default="", metavar="NAME", help="Who makes the model file. Default: who takes the least time."
)

model_option = click.option(
    "--model-option",
    "model_options",
    type=KeyValue(),
    multiple=True,
    help="An option of the model's architecture, repeatable, over those of its card.",
)
