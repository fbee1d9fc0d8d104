"""``zoo devices``"""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.boundary import tell
from zoo.cli.common import catalogue_of, json_option, print_json, print_table, verbosity_options
from zoo.errors import ZooError
from zoo.types import Availability, Device


@click.command("devices")
@json_option
@verbosity_options
def command(as_json: bool) -> None:
    """Devices: what is installed, what is available here, and why not."""
    catalogue = catalogue_of(click.get_current_context())
    rows = [describe(device) for device in catalogue.devices]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("device", "available", "precisions", "details"),
        [[str(r["name"]), "yes" if r["available"] else "no", ", ".join(r["precisions"]), _details(r)] for r in rows],
    )
    for conflict in catalogue.conflicts():
        if conflict.startswith("device"):
            tell(f"Warning: {conflict}")


def describe(device: Device) -> dict[str, Any]:
    """One device as the table, the JSON and ``zoo doctor`` show it. ``precisions`` are those it offers, its default first."""
    available = device.probe()
    try:
        precisions = device.precisions
    except ZooError as error:
        precisions, available = {}, Availability(ok=False, reason=str(error))
    return {
        "name": device.name,
        "aliases": list(device.aliases),
        "available": available.ok,
        "reason": available.reason,
        "remedy": available.remedy,
        "precisions": [name for name, info in precisions.items() if info.offered],
        "on_request": {name: info.cost for name, info in precisions.items() if not info.offered},
        "details": dict(available.details),
    }


def _details(row: dict[str, Any]) -> str:
    if not row["available"]:
        return f"{row['reason']}. {row['remedy']}".rstrip()
    return ", ".join(f"{key} {value}" for key, value in row["details"].items())
