"""``manifest.json``: what an artifact is, what it was made from, how, and the sha256 of every file of it.

The manifest is written last, so a folder without one is unfinished whatever else it holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from zoo.checkpoints.digests import Digests
from zoo.errors import InputError
from zoo.files import atomic_write, is_plain_name
from zoo.strict_json import read_object
from zoo.types import Precision, StepReport

T = TypeVar("T")

NAME = "manifest.json"
FORMAT = 2
"""Part of every key: raised when what a manifest says, or what a key is made of, changes."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file by content."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path, digests: Digests) -> FileRecord:
        return cls(size=path.stat().st_size, sha256=digests.of(path))


class Borrowed(msgspec.Struct, frozen=True, kw_only=True):
    """A file outside the artifact that it reads weights from. ``input`` is its name among the files the artifact was made from."""

    path: str
    size: int
    sha256: str
    input: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of ``manifest.json``. ``files`` are the artifact's own, ``weights`` those it was made from."""

    format: int
    key: str
    model: str
    """Name of the model card, or of the file it was made from."""
    revision: str | None
    source: str
    """Who served the weights."""
    weights: dict[str, FileRecord]
    task: str
    head: dict[str, str | int | float | bool | None]
    """What the architecture's options decided of the graph."""
    recipe: list[str]
    exporter: str
    """Who did the step ``export``, or the plugin that made the file in place of the steps."""
    options: dict[str, str | int | bool]
    plugins: dict[str, str]
    """Plugin, distribution and version of everybody who took part, by the part they had."""
    precision: Precision
    graph: str
    """The file a device opens, one of ``files``."""
    files: dict[str, FileRecord]
    borrowed: dict[str, Borrowed]
    """Files that the graph reads weights from where they are, by the name the graph gives them."""
    weights_folder: str
    """Where the graph's external data lies if not beside it."""
    steps: list[StepReport]
    versions: dict[str, str]
    machine: str
    made_at: str
    """UTC, ISO 8601."""
    seconds: float
    peak_memory: int
    """Bytes, of the step that held most."""

    @property
    def size(self) -> int:
        """Bytes of its own files together; borrowed weights are not its own."""
        return sum(record.size for record in self.files.values())


def write(manifest: Manifest, folder: Path) -> None:
    """Readable JSON with sorted keys, in place of whatever was there."""
    with atomic_write(folder / NAME, quiet=True) as handle:
        json.dump(as_builtins(manifest), handle, ensure_ascii=False, indent=2, sort_keys=True)
        handle.write("\n")


def as_builtins(manifest: Manifest) -> dict[str, Any]:
    """What ``json.dumps`` takes."""
    content: dict[str, Any] = msgspec.to_builtins(manifest)
    return content


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifests of every format say: enough to tell what a file beside one was made for."""

    format: int
    precision: Precision = "fp32"
    recipe: list[str] = []


def read(folder: Path) -> Manifest:
    """Raises InputError if there is none, or none of this version's format."""
    path = folder / NAME
    written = read_any(folder)
    if written.format != FORMAT:
        raise InputError(
            path, None, f"was written by another version of zoo (format {written.format}; this version reads {FORMAT})"
        )
    found = _decoded(path, Manifest)
    for name in (found.graph, *found.files, *found.borrowed):
        if not is_plain_name(name):
            raise InputError(path, None, f"names the file {name!r:.200}, which is outside its folder")
    if found.graph not in found.files:
        raise InputError(path, None, f"the graph '{found.graph}' is not one of its files")
    return found


def read_any(folder: Path) -> Written:
    """What a manifest of any version says. Raises InputError if there is none."""
    return _decoded(folder / NAME, Written)


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.convert(read_object(path), kind)
    except msgspec.ValidationError as error:
        raise InputError(path, None, f"is not a manifest: {error}") from error


def damage(manifest: Manifest, folder: Path, digests: Digests, *, fresh: bool = False) -> str:
    """What differs between the folder and its manifest, or an empty string. ``fresh`` reads every byte again."""
    if found := _changed(manifest.files, folder, digests, fresh=fresh):
        return found
    strange = sorted({path.name for path in folder.iterdir()} - {NAME, *manifest.files, *manifest.borrowed})
    return f"{', '.join(strange)} does not belong there" if strange else ""


def changed(manifest: Manifest, folder: Path, digests: Digests) -> str:
    """What of the model file and its weights differs in a folder that an artifact was copied into, or an empty string."""
    return _changed({**manifest.files, **manifest.borrowed}, folder, digests)


def _changed(
    records: Mapping[str, FileRecord | Borrowed], folder: Path, digests: Digests, *, fresh: bool = False
) -> str:
    for name, record in records.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != record.size:
                return f"{name} has {size:,} bytes and had {record.size:,}"
            if digests.of(path, fresh=fresh) != record.sha256:
                return f"{name} is not what was written (its sha256 differs)"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return ""
