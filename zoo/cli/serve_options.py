"""The options of ``zoo serve`` that say how the server behaves, together in its parameter ``serving``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from zoo.cli.numbers import FloatRange, IntRange
from zoo.serve.keys import read_keys
from zoo.serve.settings import ServeSettings

OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on."),
    click.option(
        "--port",
        type=IntRange(0, 65535),
        default=8000,
        show_default=True,
        help="Port to listen on; 0 takes a free one.",
    ),
    click.option(
        "--api-key-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Keys that open the server, one a line. A key in the environment variable ZOO_API_KEY is taken as well. Default: no key.",
    ),
    click.option(
        "--cors-origin",
        "cors_origins",
        multiple=True,
        metavar="ORIGIN",
        help="Web pages of this origin may call the server, repeatable.",
    ),
    click.option(
        "--long-doc",
        type=click.Choice(["truncate", "max", "mean"]),
        default="truncate",
        show_default=True,
        help="Passages past the length limit are cut there, or scored in overlapping chunks of which the maximum or the mean counts; "
        "a request may choose by its 'long_doc'.",
    ),
    click.option(
        "--max-queued-tokens",
        type=IntRange(min=1),
        metavar="N",
        help="Tokens that may wait; a request past that is answered 429.  [default: what the device does in half of --timeout, 262144 "
        "at least]",
    ),
    click.option(
        "--max-documents",
        type=IntRange(min=1),
        default=2048,
        show_default=True,
        metavar="N",
        help="Texts of a request.",
    ),
    click.option(
        "--max-body",
        type=IntRange(min=1),
        default=16 << 20,
        show_default=True,
        metavar="BYTES",
        help="Size of a request; a larger one is answered 413.",
    ),
    click.option(
        "--timeout",
        type=FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest time a request may take; it is answered 504 then. The header X-Request-Timeout asks for less.",
    ),
    click.option(
        "--device-timeout",
        type=FloatRange(min=0, min_open=True),
        default=300.0,
        show_default=True,
        metavar="SECONDS",
        help="A device that gives no result for so long is opened again.",
    ),
    click.option(
        "--drain-timeout",
        type=FloatRange(min=0),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="What requests that are being answered may take after SIGTERM.",
    ),
    click.option(
        "--access-log/--no-access-log",
        default=True,
        show_default=True,
        help="A line of JSON on stdout for each request.",
    ),
    click.option(
        "--otlp-endpoint",
        metavar="URL",
        help="Send OpenTelemetry spans there by OTLP over HTTP (pip install 'zoo-runner[otel]').",
    ),
)


def serve_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that fill a ServeSettings, and that in their place."""

    @functools.wraps(function)
    def gathered(*, api_key_file: Path | None, **values: Any) -> Any:
        given = {field.name: values.pop(field.name) for field in fields(ServeSettings) if field.name in values}
        return function(serving=ServeSettings(keys=read_keys(api_key_file), **given), **values)

    for option in reversed(OPTIONS):
        gathered = option(gathered)
    return gathered
