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
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from zoo.cli.boundary import tell_error
from zoo.cli.common import catalogue_of, verbosity_options
from zoo.cli.device_options import DeviceCommand
from zoo.cli.model_options import model_options
from zoo.cli.numbers import IntRange
from zoo.cli.precision import chosen_precision
from zoo.cli.serve_options import serve_options
from zoo.cli.threads import bound_tokenizer
from zoo.errors import NotInstalledError, ZooError
from zoo.reranker import Reranker
from zoo.settings import RunSettings

if TYPE_CHECKING:
    from zoo.checkpoints.resolve import Named
    from zoo.registry.catalogue import Catalogue
    from zoo.serve.models import ServedModel
    from zoo.serve.server import Server
    from zoo.serve.settings import ServeSettings

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
@click.option(
    "--max-batch-tokens",
    type=IntRange(min=1),
    metavar="N",
    help="Tokens of a batch, padding included. A longer pair runs alone.  [default: the device's own choice]",
)
@serve_options
@model_options()
@verbosity_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    settings: RunSettings,
    serving: ServeSettings,
    more: tuple[str, ...],
    aliases: tuple[tuple[str, str], ...],
    max_batch_tokens: int | None,
) -> None:
    """Serve MODEL over HTTP, in the forms of TEI, Cohere, Jina, vLLM and others.

    MODEL is named as 'zoo run' takes it: a model's name, hf:ORG/NAME, ./card.toml or ./FOLDER. A page for trying it out is at the address
    that is printed when the model is ready. The access log goes to stdout, messages to stderr.
    """
    if more and (settings.config_path or settings.ckpt):
        raise click.UsageError("--config-path and --ckpt belong to a single model; several are served here.")
    chosen_precision(None, settings.precision, settings.ckpt)
    settings = replace(settings, batch_size=None, batch_tokens=max_batch_tokens)
    catalogue = catalogue_of(ctx)
    try:
        from zoo.serve.models import ServedModel
        from zoo.serve.server import Server
    except ModuleNotFoundError as error:
        raise NotInstalledError(EXTRA.format(module=f"the Python module '{error.name}'")) from error
    models = _named(catalogue, [settings.model, *more], aliases, offline=settings.offline)
    bound_tokenizer(settings.threads)
    served = [
        ServedModel(
            model.card.name,
            functools.partial(Reranker.from_settings, replace(settings, model=model.name), catalogue),
            names=names,
            device_timeout=serving.device_timeout,
        )
        for model, names in models
    ]
    server = Server(served, serving, functools.partial(_announce, served))
    if not serving.keys and not is_loopback(serving.host):
        logger.warning(
            "whoever reaches %s may use it: give it keys (`api_key_file`), or let it listen on 127.0.0.1", serving.host
        )
    _run(server)


def _named(
    catalogue: Catalogue, given: Sequence[str], aliases: Sequence[tuple[str, str]], *, offline: bool
) -> list[tuple[Named, list[str]]]:
    """The models with the other names that requests may use for each. Raises ZooError, before anything is opened."""
    from zoo.checkpoints.resolve import check_name, resolve

    for name in given:
        check_name(catalogue, name)  # a misspelt name is reported before another one is asked for on the hub
    found: dict[str, tuple[Named, list[str]]] = {}
    meant: dict[str, str] = {}
    for name in dict.fromkeys(given):
        model = resolve(catalogue, name, offline=offline)
        known, _ = found.setdefault(model.card.name, (model, [model.card.hub] if model.card.hub else []))
        if known.name != model.name:
            raise ZooError(f"{known.name} and {name} would both be served as '{model.card.name}'; serve one of them")
        meant |= {name: model.card.name, model.card.name: model.card.name}
    owners = {name.casefold(): served for served, (_, names) in found.items() for name in (served, *names)}
    for alias, name in aliases:
        if name not in meant:
            raise click.UsageError(f"--alias {alias}={name}: '{name}' is not served here.")
        owner = owners.setdefault(alias.casefold(), meant[name])
        if owner != meant[name]:
            raise click.UsageError(f"--alias {alias}={name}: '{owner}' is called so already. Choose another name.")
        found[owner][1].append(alias)
    return list(found.values())


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
        tell_error(str(error))
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
