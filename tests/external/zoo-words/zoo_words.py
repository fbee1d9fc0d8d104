"""A command that counts words."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from zoo.api import CommandOffer, ZooError, hookimpl


@click.command("words")
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")
def command(text: str, as_json: bool) -> None:
    """Count the words of TEXT."""
    count = len(text.split())
    if not count:
        raise ZooError("the text has no words; give one or more")
    click.echo(json.dumps({"words": count}) if as_json else count)


@hookimpl
def zoo_commands() -> Mapping[str, CommandOffer]:
    return {"words": CommandOffer(summary="Count the words of TEXT.", command="zoo_words:command")}
