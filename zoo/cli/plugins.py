"""``zoo plugins``"""

from __future__ import annotations

import click

from zoo.cli.boundary import tell
from zoo.cli.common import catalogue_of, json_option, print_json, print_table, verbosity_options
from zoo.registry.catalogue import Catalogue


@click.command("plugins")
@json_option
@verbosity_options
def command(as_json: bool) -> None:
    """Plugins: what each one brings, and which could not be loaded."""
    catalogue = catalogue_of(click.get_current_context())
    conflicts = [*catalogue.conflicts(), *_taken(catalogue)]
    rows = [
        {
            "name": record.name,
            "distribution": record.distribution,
            "version": record.version,
            "ok": not record.error,
            "error": record.error,
            "offers": record.offers,
        }
        for record in catalogue.plugins
    ]
    if as_json:
        print_json({"plugins": rows, "conflicts": conflicts})
        return
    print_table(
        ("plugin", "distribution", "version", "state", "brings"),
        [
            [
                r.name,
                r.distribution,
                r.version,
                "broken" if r.error else "ok",
                r.error or ", ".join(r.offers) or "nothing",
            ]
            for r in catalogue.plugins
        ],
    )
    for conflict in conflicts:
        tell(f"Warning: {conflict}")


def _taken(catalogue: Catalogue) -> list[str]:
    """Commands of plugins that zoo itself has under the same name."""
    from zoo.cli import COMMANDS

    return [
        f"the command '{name}' of the plugin {offer.plugin.label} is left out: zoo has one of that name"
        for name, offer in catalogue.commands.items()
        if name in COMMANDS
    ]
