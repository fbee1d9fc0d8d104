"""``manifest.json``: what an artifact is, what it was made from, how, and the sha256 of every file of it.

The manifest is written last, so a folder without one is unfinished whatever else it holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from zoo.checkpoints.digests import Digests
from zoo.errors import InputError
from zoo.types import Precision, StepReport

NAME = "manifest.json"
FORMAT = 1
"""Part of every key: raised when the same recipe makes something else than before."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file by content."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path, digests: Digests) -> FileRecord:
        return cls(size=path.stat().st_size, sha256=digests.of(path))


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
    recipe: list[str]
    options: dict[str, str | int | bool]
    precision: Precision
    graph: str
    """The file a device opens, one of ``files``."""
    files: dict[str, FileRecord]
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
        """Bytes of all files together."""
        return sum(record.size for record in self.files.values())


def write(manifest: Manifest, folder: Path) -> None:
    """Readable JSON with sorted keys, in place of whatever was there."""
    text = json.dumps(as_builtins(manifest), ensure_ascii=False, indent=2, sort_keys=True)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def as_builtins(manifest: Manifest) -> dict[str, Any]:
    """What ``json.dumps`` takes."""
    content: dict[str, Any] = msgspec.to_builtins(manifest)
    return content


def read(folder: Path) -> Manifest:
    """Raises InputError where there is none, or none this version understands."""
    path = folder / NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InputError(path, None, f"is no manifest: {error}") from error
    if manifest.format != FORMAT:
        raise InputError(path, None, f"has format {manifest.format}; this version reads {FORMAT}")
    return manifest


def damage(manifest: Manifest, folder: Path, digests: Digests, *, fresh: bool = False) -> str:
    """What differs between the folder and its manifest, or an empty string. ``fresh`` reads every byte again."""
    for name, record in manifest.files.items():
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
    strange = sorted({path.name for path in folder.iterdir()} - {NAME, *manifest.files})
    return f"{', '.join(strange)} does not belong there" if strange else ""
