"""What the commands share: the catalogue, verbosity, and the forms of output."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zoo.cli.boundary import is_terminal, out, speaks_utf8, tell
from zoo.cli.settings_names import as_flags
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.registry.catalogue import Catalogue

DEBUG, CATALOGUE = "zoo.debug", "zoo.catalogue"
F = TypeVar("F", bound=Callable[..., Any])


def catalogue_of(ctx: click.Context) -> Catalogue:
    """What is installed: asked once a process, by whichever part of the command line needs it first."""
    from zoo.registry.catalogue import Catalogue

    meta = ctx.find_root().meta
    if CATALOGUE not in meta:
        meta[CATALOGUE] = Catalogue.installed()
    found: Catalogue = meta[CATALOGUE]
    return found


def debugging(ctx: click.Context) -> bool:
    """Whether ``--debug`` was given."""
    return bool(ctx.find_root().meta.get(DEBUG))


def verbosity_options(function: F) -> F:
    """``-v``, ``-q`` and ``--debug`` for a command."""

    def set_level(ctx: click.Context, param: click.Parameter, value: int | bool) -> None:
        if value:
            ctx.meta[param.name or ""] = int(value)
        level = 1 + ctx.meta.get("verbose", 0) - ctx.meta.get("quiet", 0)
        _log_to_stderr({0: logging.WARNING, 1: logging.INFO}.get(max(level, 0), logging.DEBUG))

    def set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        ctx.find_root().meta[DEBUG] = value

    for option in (
        click.option(
            "--debug", is_flag=True, expose_value=False, callback=set_debug, is_eager=True, help="Show tracebacks."
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=set_level,
            help="Only warnings and errors on stderr.",
        ),
        click.option("-v", "--verbose", count=True, expose_value=False, callback=set_level, help="Say more on stderr."),
    ):
        function = option(function)
    return function


def _log_to_stderr(level: int) -> None:
    logger = logging.getLogger("zoo")
    logger.setLevel(level)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    """Writes to whatever stderr is now, so that a program (or a test) may exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "Warning: " if record.levelno >= logging.WARNING else ""
        tell(prefix + as_flags(record.getMessage()))


def check_folder_of(path: Path | None) -> None:
    """Refuse a file to write whose folder is not there, before minutes of work. Raises ZooError."""
    if path is not None and not path.parent.is_dir():
        raise ZooError(f"cannot write {path}: there is no folder {path.parent}")


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")


def print_json(value: object) -> None:
    """One JSON document on stdout, characters as they are if stdout takes all of them."""
    out(json.dumps(value, ensure_ascii=not speaks_utf8(), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal; untruncated text if stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if is_terminal(sys.stdout):
        Console(file=sys.stdout).print(table)
        return
    text = io.StringIO()
    Console(file=text, width=10_000).print(table)
    out("\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").splitlines()))
