"""``zoo cache``"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.boundary import fail, out, tell
from zoo.cli.common import catalogue_of, json_option, print_json, print_table, verbosity_options
from zoo.cli.numbers import FloatRange

if TYPE_CHECKING:
    from zoo.export.store import Entry


@click.group("cache")
def command() -> None:
    """Model files that were made and kept: list, verify, prune."""


@command.command("list")
@json_option
@verbosity_options
def list_(as_json: bool) -> None:
    """Every artifact: what it is, how large, and whether it is as it was written; and what else is kept."""
    from zoo.export.store import Store

    store = Store()
    entries = list(store.entries())
    folders = _other_folders(click.get_current_context())
    if as_json:
        print_json({"folder": str(store.root), "artifacts": [_row(entry) for entry in entries], "others": folders})
        return
    print_table(
        ("artifact", "model", "precision", "recipe", "size", "made", "state"),
        [
            [
                r["key"],
                r["model"],
                r["precision"],
                ", ".join(r["recipe"]),
                _megabytes(r["size"]),
                r["made_at"],
                r["state"],
            ]
            for r in map(_row, entries)
        ],
    )
    tell(f"{len(entries)} artifacts in {store.root}")
    for folder in folders:
        if folder["size"]:
            tell(f"{folder['path']} holds {folder['holds']}: {_megabytes(folder['size'])}")


@command.command("verify")
@click.argument("keys", nargs=-1, metavar="[ARTIFACT]...")
@json_option
@verbosity_options
def verify(keys: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of every artifact (or of those named) and compare with its manifest; exit 1 where one is damaged."""
    from zoo.export.store import Store

    store = Store()
    _known(keys, store)
    entries = [entry for entry in store.entries(fresh=True) if not keys or entry.key in keys]
    if as_json:
        print_json({"folder": str(store.root), "artifacts": [_row(entry) for entry in entries]})
    else:
        print_table(("artifact", "state"), [[entry.key, _row(entry)["state"]] for entry in entries])
    damaged = [entry.key for entry in entries if entry.damage]
    if damaged:
        fail(
            f"{len(damaged)} of {len(entries)} artifacts are damaged; 'zoo cache prune' deletes them, a run makes them again"
        )


@command.command("prune")
@click.argument("keys", nargs=-1, metavar="[ARTIFACT]...")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Delete every artifact, and what else is kept: compiled engines, quality reports, models that a cluster sent.",
)
@click.option(
    "--unused-for",
    type=FloatRange(min=0),
    metavar="DAYS",
    help="Delete artifacts that no run has opened for so long.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@json_option
@verbosity_options
def prune(keys: tuple[str, ...], everything: bool, unused_for: float | None, dry_run: bool, as_json: bool) -> None:
    """Delete damaged artifacts, those named, and what killed processes left behind."""
    from zoo.export.store import Store

    store = Store()
    _known(keys, store)
    oldest = time.time() - unused_for * 86_400 if unused_for is not None else None
    chosen = [
        entry
        for entry in store.entries()
        if everything or entry.damage or entry.key in keys or (oldest is not None and entry.used_at < oldest)
    ]
    rows = [_row(entry) for entry in chosen]
    leftovers = store.leftovers() if dry_run else store.sweep()
    if not dry_run:
        for entry in chosen:
            store.remove(entry.key)
    others = _other_folders(click.get_current_context()) if everything else []
    if not dry_run:
        for folder in others:
            shutil.rmtree(folder["path"], ignore_errors=True)
    freed = leftovers + sum(row["size"] for row in [*rows, *others])
    if as_json:
        print_json(
            {
                "deleted": [row["key"] for row in rows],
                "others": [row["path"] for row in others],
                "bytes": freed,
                "dry_run": dry_run,
            }
        )
        return
    for row in rows:
        out(row["key"])
    verb = "would give back" if dry_run else "gave back"
    tell(f"{len(rows)} artifacts and leftovers: {verb} {_megabytes(freed)}")


def _other_folders(ctx: click.Context) -> list[dict[str, Any]]:
    """What lies below ZOO_HOME beside artifacts and can be made or sent again."""
    from zoo.files import size_of
    from zoo.paths import RECEIVED, zoo_home
    from zoo.precision import CACHE

    return [
        {"path": str(path), "holds": cache.holds, "size": size_of(path)}
        for cache in (CACHE, RECEIVED, *catalogue_of(ctx).caches)
        if (path := zoo_home() / cache.name).is_dir()
    ]


def _known(keys: tuple[str, ...], store: Any) -> None:
    from zoo.errors import UnknownNameError

    here = [path.name for path in store.folders()]
    for key in keys:
        if key not in here:
            raise UnknownNameError("artifact", key, here)


def _row(entry: Entry) -> dict[str, Any]:
    from zoo.files import size_of

    found = entry.manifest
    return {
        "key": entry.key,
        "path": str(entry.folder),
        "model": found.model if found else "-",
        "precision": found.precision if found else "-",
        "recipe": list(found.recipe) if found else [],
        "size": size_of(entry.folder),
        "borrowed": {name: weights.path for name, weights in found.borrowed.items()} if found else {},
        "made_at": found.made_at if found else "-",
        "source": found.source if found else "-",
        "ok": not entry.damage,
        "state": _state(entry),
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _state(entry: Entry) -> str:
    if entry.damage:
        return f"damaged: {entry.damage}"
    borrowed = entry.manifest.borrowed.values() if entry.manifest else ()
    return "ok" + "".join(f", weights in {weights.path}" for weights in borrowed)
