"""``zoo plugins``"""

from __future__ import annotations

import click

from zoo.cli.common import json_option, print_json, print_table, verbosity_options
from zoo.registry.catalogue import Catalogue


@click.command("plugins")
@json_option
@verbosity_options
def command(as_json: bool) -> None:
    """Plugins: what each one brings, and which could not be loaded."""
    catalogue = Catalogue.installed()
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
        print_json({"plugins": rows, "conflicts": catalogue.conflicts()})
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
    for conflict in catalogue.conflicts():
        click.echo(f"Warning: {conflict}", err=True)
