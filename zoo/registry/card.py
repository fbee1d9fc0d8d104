"""Model cards: one short TOML file is all a reranker of a known architecture needs."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from zoo.errors import InputError, suggestion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published or measured value to hold a result against."""

    dataset: str
    """Data set and language, for example ``mldr/en``."""
    metric: str
    """For example ``ndcg@10``."""
    value: float
    """What was published or measured."""
    tolerance: float
    """Largest absolute difference that still counts as reproduced."""
    settings: str
    """What it was measured with, in words."""
    source: str
    """Who says so: a paper, a page, a command of this repository."""


class CardFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a card's TOML file; an unknown key is an error."""

    description: str
    """One line for listings."""
    architecture: str
    """Name of an architecture some installed plugin offers."""
    license: str
    """Licence of the weights."""
    languages: list[str]
    """Language codes, or ``multilingual``."""
    max_length: int
    """Longest input in tokens that the model's positions allow."""
    hub: str | None = None
    """Repository on the Hugging Face hub."""
    revision: str | None = None
    """Commit of ``hub`` that this card was written for; never a branch."""
    modelscope: str | None = None
    """Repository on ModelScope, a second place for the same weights."""
    bundled: str | None = None
    """Folder beside the card that holds the whole checkpoint, exported."""
    notice: str | None = None
    """Said on stderr on every run."""
    options: dict[str, str | int | float | bool] = {}
    """Settings of the architecture, for example a template or an instruction; what it takes is listed with the architecture."""
    reference: list[Reference] = []
    """Values to hold results against."""


class ModelCard(CardFields, frozen=True, kw_only=True):
    """A parsed card. ``name`` is what users type: the stem of the file, which lies in ``folder``."""

    name: str
    folder: Path

    @property
    def bundled_folder(self) -> Path | None:
        """Where the checkpoint that came with the card lies."""
        return self.folder / self.bundled if self.bundled else None


def load_card(path: Path) -> ModelCard:
    """Read one card. Raises InputError naming the file and the key that is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(path, None, f"is not a readable model card: {error}") from error
    known = [field.name for field in msgspec.structs.fields(CardFields)]
    for key in table:
        if key not in known:
            close = suggestion(key, known)
            hint = f" Did you mean '{close}'?" if close else f" Known keys: {', '.join(known)}."
            raise InputError(path, None, f"unknown key '{key}' in a model card.{hint}")
    try:
        fields = msgspec.convert(table, CardFields)
    except msgspec.ValidationError as error:
        raise InputError(path, None, f"is not a valid model card: {error}") from error
    if fields.hub and not fields.revision:
        raise InputError(path, None, "'hub' needs 'revision', the commit the card was written for")
    if fields.max_length < 1:
        raise InputError(path, None, f"'max_length' must be positive, not {fields.max_length}")
    return ModelCard(name=path.stem, folder=path.parent, **msgspec.structs.asdict(fields))


def find_cards(places: list[Path]) -> list[Path]:
    """Card files among ``places``: TOML files themselves, or those directly inside folders. Raises InputError."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(place.glob("*.toml"))
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(place, None, "no such model card or folder of cards")
    return found
