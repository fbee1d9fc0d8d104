"""The command line as an object: every command by its whole name."""

from __future__ import annotations

from collections.abc import Iterator

import click

from zoo.cli import main


def commands(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command and subcommand by its whole name: ``run``, ``cache list``."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield prefix + name, command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
