"""``zoo serve``"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from zoo.cli.common import catalogue_of, verbosity_options
from zoo.cli.device_options import DeviceCommand, KeyValue
from zoo.cli.numbers import FloatRange, IntRange
from zoo.cli.precision import precision_option
from zoo.cli.threads import bound_tokenizer
from zoo.errors import NotInstalledError, ZooError
from zoo.reranker import Reranker
from zoo.settings import DEFAULT_LENGTH, PrecisionChoice, RunSettings

if TYPE_CHECKING:
    from zoo.serve.models import ServedModel
    from zoo.serve.server import Server

logger = logging.getLogger(__name__)


EXTRA = "zoo serve needs {module}, which is not installed: pip install 'zoo-runner[serve]'"


class Alias(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """``NAME=MODEL``"""

    name = "NAME=MODEL"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        alias, _, model = str(value).rpartition("=")
        if not (alias and model):
            self.fail(f"'{value}' is not of the form NAME=MODEL", param, ctx)
        return alias, model


@click.command("serve", cls=DeviceCommand)
@click.argument("model")
@click.option(
    "--model",
    "more",
    multiple=True,
    metavar="MODEL",
    help="Another model to serve, repeatable; requests choose by their 'model'.",
)
@click.option(
    "--alias",
    "aliases",
    type=Alias(),
    multiple=True,
    help="Another name that requests may use for a served model, repeatable.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port",
    type=IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keys that open the server, one a line. A key in the environment variable ZOO_API_KEY is taken as well. Default: no key.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web pages of this origin may call the server, repeatable.",
)
@click.option(
    "--config-path",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with tokenizer and config, or a whole checkpoint. Default: the first place that has the model.",
)
@click.option("--ckpt", type=click.Path(path_type=Path), metavar="FILE", help="Model file to serve; skips the export.")
@click.option(
    "--target", metavar="DEVICE", help="Device to run on, see 'zoo devices'. Default: the best one available."
)
@precision_option
@click.option(
    "--shape",
    type=IntRange(min=1),
    metavar="TOKENS",
    help=f"Length limit of query and passage together, in tokens.  [default: {DEFAULT_LENGTH}]",
)
@click.option(
    "--query-max-length",
    type=IntRange(min=1),
    default=DEFAULT_LENGTH,
    show_default=True,
    metavar="TOKENS",
    help="Length limit of the query alone.",
)
@click.option(
    "--long-doc",
    type=click.Choice(["truncate", "max", "mean"]),
    default="truncate",
    show_default=True,
    help="Passages past the length limit are cut there, or scored in overlapping chunks of which the maximum or the mean counts; "
    "a request may choose by its 'long_doc'.",
)
@click.option(
    "--max-batch-tokens",
    type=IntRange(min=1),
    metavar="N",
    help="Tokens of a batch, padding included. A longer pair runs alone.  [default: the device's own choice]",
)
@click.option(
    "--max-queued-tokens",
    type=IntRange(min=1),
    metavar="N",
    help="Tokens that may wait; a request past that is answered 429.  [default: what the device does in half of --timeout, 262144 "
    "at least]",
)
@click.option(
    "--max-documents",
    type=IntRange(min=1),
    default=2048,
    show_default=True,
    metavar="N",
    help="Texts of a request.",
)
@click.option(
    "--max-body",
    type=IntRange(min=1),
    default=16 << 20,
    show_default=True,
    metavar="BYTES",
    help="Size of a request; a larger one is answered 413.",
)
@click.option(
    "--timeout",
    type=FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time a request may take; it is answered 504 then. The header X-Request-Timeout asks for less.",
)
@click.option(
    "--device-timeout",
    type=FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="A device that gives no result for so long is opened again.",
)
@click.option(
    "--drain-timeout",
    type=FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="What requests that are being answered may take after SIGTERM.",
)
@click.option("--offline", is_flag=True, help="Never touch the network for a model.")
@click.option(
    "--threads",
    type=IntRange(min=1),
    metavar="N",
    help="Threads to compute with. Default: what this process may use.",
)
@click.option(
    "--workers",
    type=IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that each load the model and compute on their share of the threads.",
)
@click.option(
    "--model-option",
    "model_options",
    type=KeyValue(),
    multiple=True,
    help="An option of the models' architecture, repeatable, over those of their cards.",
)
@click.option(
    "--access-log/--no-access-log", default=True, show_default=True, help="A line of JSON on stdout for each request."
)
@click.option(
    "--otlp-endpoint",
    metavar="URL",
    help="Send OpenTelemetry spans there by OTLP over HTTP (pip install 'zoo-runner[otel]').",
)
@verbosity_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    model: str,
    more: tuple[str, ...],
    aliases: tuple[tuple[str, str], ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    cors_origins: tuple[str, ...],
    config_path: Path | None,
    ckpt: Path | None,
    target: str | None,
    precision: PrecisionChoice | None,
    shape: int | None,
    query_max_length: int,
    long_doc: Literal["truncate", "max", "mean"],
    max_batch_tokens: int | None,
    max_queued_tokens: int | None,
    max_documents: int,
    max_body: int,
    timeout: float,
    device_timeout: float,
    drain_timeout: float,
    offline: bool,
    threads: int | None,
    workers: int,
    device_options: dict[str, str],
    model_options: tuple[tuple[str, str], ...],
    access_log: bool,
    otlp_endpoint: str | None,
) -> None:
    """Serve MODEL over HTTP, in the forms of TEI, Cohere, Jina, vLLM and others.

    A page for trying it out is at the address that is printed when the model is ready. The access log goes to stdout, messages to stderr.
    """
    if more and (config_path or ckpt):
        raise click.UsageError("--config-path and --ckpt belong to a single model; several are served here.")
    catalogue = catalogue_of(ctx)
    names = list(dict.fromkeys([model, *more]))
    cards = {name: catalogue.card(name) for name in names}  # a misspelt name is said before anything is opened
    for alias, name in aliases:
        if name not in cards:
            raise click.UsageError(f"--alias {alias}={name}: '{name}' is not served here.")
    try:
        from zoo.serve.keys import read_keys
        from zoo.serve.models import ServedModel
        from zoo.serve.server import Server
        from zoo.serve.settings import ServeSettings
    except ModuleNotFoundError as error:
        raise NotInstalledError(EXTRA.format(module=f"the Python module '{error.name}'")) from error
    settings = ServeSettings(
        host=host,
        port=port,
        keys=read_keys(api_key_file),
        max_documents=max_documents,
        max_body=max_body,
        max_queued_tokens=max_queued_tokens,
        timeout=timeout,
        device_timeout=device_timeout,
        drain_timeout=drain_timeout,
        long_doc=long_doc,
        cors_origins=cors_origins,
        access_log=access_log,
        otlp_endpoint=otlp_endpoint,
    )
    bound_tokenizer(threads)
    served = []
    for name, card in cards.items():
        wanted = RunSettings(
            model=name,
            target=target,
            precision=precision,
            batch_size=None,
            batch_tokens=max_batch_tokens,
            max_length=shape,
            query_max_length=query_max_length,
            config_path=config_path,
            ckpt=ckpt,
            threads=threads,
            workers=workers,
            offline=offline,
            device_options=device_options,
            model_options=dict(model_options),
        )
        known_as = [alias for alias, of in aliases if of == name] + ([card.hub] if card.hub else [])
        opener = functools.partial(Reranker.from_settings, wanted, catalogue)
        served.append(ServedModel(name, opener, names=known_as, device_timeout=device_timeout))
    server = Server(served, settings, functools.partial(_announce, served))
    logger.info("listening on %s, opening %s", server.address, ", ".join(names))
    if not settings.keys and not is_loopback(host):
        logger.warning(
            "whoever reaches %s may use it: give it keys (`api_key_file`), or let it listen on 127.0.0.1", host
        )
    _run(server)


def _announce(served: Sequence[ServedModel], address: str) -> None:
    on = ", ".join(
        f"{each.name} on {each.reranker.device_name} in {each.reranker.precision}" for each in served if each.reranker
    )
    logger.info("ready: %s (%s)", address, on)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _run(server: Server) -> None:
    """Serve to the end. A device that hangs, or a model that is still being opened, does not hold up the end of the process."""
    try:
        server.serve_until_told()
    except ZooError as error:
        if not _work_is_left():
            raise
        click.echo(f"Error: {error}", err=True)
        _leave(1)
    if _work_is_left():
        _leave(0)


def _work_is_left() -> bool:
    from zoo.serve import threads

    return any(thread.name == threads.NAME for thread in threading.enumerate())


def _leave(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
