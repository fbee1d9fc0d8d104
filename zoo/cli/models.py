"""``zoo models``"""

from __future__ import annotations

import click

from zoo.cli.common import catalogue_of, json_option, print_json, print_table, verbosity_options
from zoo.errors import ZooError
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue


@click.command("models")
@json_option
@verbosity_options
def command(as_json: bool) -> None:
    """Models that can be run, from every installed plugin."""
    catalogue = catalogue_of(click.get_current_context())
    rows = [_row(catalogue, name) for name in sorted(catalogue.models)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("model", "architecture", "max length", "from", "description"),
        [[str(row[key]) for key in ("name", "architecture", "max_length", "plugin", "description")] for row in rows],
    )


def _row(catalogue: Catalogue, name: str) -> dict[str, object]:
    """One model as the table and the JSON show it; a card that cannot be used shows why."""
    plugin = " and ".join(offer.plugin.name for offer in catalogue.models[name])
    try:
        card: ModelCard = catalogue.card(name)
    except ZooError as error:
        return {
            "name": name,
            "plugin": plugin,
            "architecture": "-",
            "max_length": "-",
            "description": f"unusable: {error}",
            "error": str(error),
        }
    return {
        "name": name,
        "plugin": plugin,
        "architecture": card.architecture,
        "max_length": card.max_length,
        "description": card.description,
        "license": card.license,
        "languages": card.languages,
        "weights": card.hub or card.modelscope or "bundled",
        "revision": card.revision,
    }
