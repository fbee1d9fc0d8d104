"""``zoo doctor``"""

from __future__ import annotations

import click

from zoo.checks.machine import examine
from zoo.cli.boundary import out
from zoo.cli.common import catalogue_of, json_option, print_json, verbosity_options
from zoo.cli.settings_names import as_flags


@click.command("doctor")
@click.option("--offline", is_flag=True, help="Do not ask whether the hub can be reached.")
@json_option
@verbosity_options
def command(offline: bool, as_json: bool) -> None:
    """One page about this machine: versions, devices, threads, caches, hub."""
    sections = examine(catalogue_of(click.get_current_context()), offline=offline)
    if as_json:
        print_json(sections)
        return
    width = max(len(name) for facts in sections.values() for name in facts)
    for section, facts in sections.items():
        out(click.style(section, bold=True))
        for name, value in facts.items():
            out(f"  {name:<{width}}  {as_flags(str(value))}")
