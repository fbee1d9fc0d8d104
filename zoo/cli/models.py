"""``zoo models``, ``zoo models NAME``"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from zoo.cli.boundary import out
from zoo.cli.common import catalogue_of, json_option, print_json, print_table, verbosity_options
from zoo.errors import ZooError
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue

COLUMNS = ("model", "parameters", "licence", "languages", "max length", "here", "description")
NAMED = 3
"""Languages that the table names; more are counted."""


@click.command("models")
@click.argument("name", required=False)
@click.option("--offline", is_flag=True, help="Never touch the network, which a name of the hub needs.")
@json_option
@verbosity_options
def command(name: str | None, offline: bool, as_json: bool) -> None:
    """Models that can be run, from every installed plugin; with NAME, one card whole.

    NAME may be a model's, a repository on the hub (hf:ORG/NAME), a card (./card.toml) or a folder with a checkpoint. The column 'here'
    gives the size of the weights on this machine.
    """
    catalogue = catalogue_of(click.get_current_context())
    if name is not None:
        _show_one(catalogue, name, offline=offline, as_json=as_json)
        return
    rows = [_row(catalogue, each) for each in sorted(catalogue.models)]
    if as_json:
        print_json(rows)
        return
    print_table(COLUMNS, [_cells(row) for row in rows])


def _show_one(catalogue: Catalogue, name: str, *, offline: bool, as_json: bool) -> None:
    from zoo.checkpoints.resolve import resolve

    named = resolve(catalogue, name, offline=offline)
    plugins = [offer.plugin.name for offer in catalogue.models.get(named.card.name, ())]
    content = _whole(named.card, named.folder, " and ".join(plugins) or "none")
    if as_json:
        print_json(content)
        return
    for key, value in content.items():
        if value not in (None, [], {}, ""):
            out("\n".join(_lines(key, value)))


def _whole(card: ModelCard, folder: Path | None, plugin: str) -> dict[str, Any]:
    """Everything that the card says, and where its weights are."""
    import msgspec

    said = {key: msgspec.to_builtins(value) for key, value in msgspec.structs.asdict(card).items() if key != "folder"}
    return {"name": said.pop("name"), "plugin": plugin, **_here(card, folder), **said}


def _here(card: ModelCard, folder: Path | None = None) -> dict[str, Any]:
    """The folder that has the weights on this machine, and their bytes; both None if there is none."""
    from zoo.checkpoints.files import onnx_file, weight_files
    from zoo.checkpoints.sources import found_here

    place = folder or found_here(card)
    try:
        files = weight_files(place) if place else []
    except ZooError:
        exported = onnx_file(place) if place else None
        files = [exported, *exported.parent.glob(f"{exported.name}_data")] if exported else []
    return {"here": str(place) if place else None, "bytes": sum(path.stat().st_size for path in files) or None}


def _row(catalogue: Catalogue, name: str) -> dict[str, Any]:
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
        "parameters": card.parameters,
        "description": card.description,
        "license": card.license,
        "languages": card.languages,
        "weights": card.hub or card.modelscope or "bundled",
        "revision": card.revision,
        **_here(card),
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    languages = row.get("languages", [])
    shown = " ".join(languages) if len(languages) <= NAMED else f"{len(languages)} languages"
    return [
        row["name"], _count(row.get("parameters")), row.get("license", "-"), shown or "-", str(row["max_length"]),
        _size(row.get("bytes")) if row.get("here") else "-", row["description"],
    ]  # fmt: skip


def _count(parameters: int | None) -> str:
    if parameters is None:
        return "-"
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"


def _size(size: int | None) -> str:
    return "yes" if not size else f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _lines(key: str, value: object) -> Iterator[str]:
    """A key of a card for a terminal: a text of several lines, and each entry of a list of tables, is set in below it."""
    if isinstance(value, str) and "\n" in value:
        yield f"{key}:"
        yield from (f"    {line}" for line in value.splitlines())
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _lines(f"{key}.{name}", inner)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield f"{key}:"
        for entry in value:
            yield "    " + "; ".join(f"{name} {inner}" for name, inner in entry.items())
    else:
        yield f"{key}: {' '.join(value) if isinstance(value, list) else value}"
