"""Model cards: one short TOML file is all a reranker of a known architecture needs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec

from zoo.errors import InputError, suggestion
from zoo.files import is_plain_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMIT = re.compile(r"[0-9a-f]{40}")


REPOSITORY = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


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
    split: str = "test"
    """Split of the data set."""
    retriever: str | None = None
    """First stage that gave the candidates. A result is held against the value only if this, ``top_k`` and ``max_length`` are stated and
    are those of the run."""
    top_k: int | None = None
    """Candidates of each query that were reranked."""
    max_length: int | None = None
    """Length limit of query and passage together, in tokens."""
    query_max_length: int | None = None
    """Length limit of the query, in tokens."""


class GoldenScore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pair and the logit that the publisher prints for it; ``zoo verify`` scores it and holds the difference against ``tolerance``."""

    query: str
    """The query, to the letter."""
    passage: str
    """The passage, to the letter."""
    logit: float
    """What was published; of a published probability p, ln(p / (1 - p))."""
    tolerance: float
    """Largest absolute difference that still counts as reproduced."""
    settings: str
    """What it was measured with, in words."""
    source: str
    """Who says so."""


class CardFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a card's TOML file; an unknown key is an error."""

    description: str
    """One line for listings."""
    architecture: str
    """Name of an architecture some installed plugin offers."""
    license: str
    """Licence of the weights, by its SPDX name where it has one; one that is not known to be free for any use is named at first use."""
    languages: list[str]
    """Language codes, or ``multilingual``; they are held against a data set's."""
    max_length: int
    """Longest input in tokens that the model's positions allow, or that it was made for."""
    parameters: int | None = None
    """Parameters, as published."""
    hub: str | None = None
    """Repository on the Hugging Face hub."""
    revision: str | None = None
    """Commit of ``hub`` that this card was written for; never a branch. Without it the commit that served is the one recorded."""
    modelscope: str | None = None
    """Repository on ModelScope, a second place for the same weights."""
    bundled: str | None = None
    """Folder beside the card that holds the whole checkpoint, exported."""
    notice: str | None = None
    """Said on stderr on every run."""
    options: dict[str, str | int | float | bool | dict[str, str | int | float | bool]] = {}
    """Settings of the architecture, for example a template or an instruction; what it takes is listed with the architecture. A table
    named after a device (``[options.sdaa]``) has options of that device; a file is looked for beside the card."""
    reference: list[Reference] = []
    """Values to hold results against."""
    golden: list[GoldenScore] = []
    """Pairs with the scores their publisher gives."""


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
    except (OSError, ValueError, RecursionError) as error:  # a number of thousands of digits is a bare ValueError
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
    if fields.revision and not COMMIT.fullmatch(fields.revision):
        raise InputError(path, None, f"'revision' must be a commit of 40 hexadecimal digits, not '{fields.revision}'")
    for key, repository in (("hub", fields.hub), ("modelscope", fields.modelscope)):
        if repository is not None and not REPOSITORY.fullmatch(repository):
            raise InputError(path, None, f"'{key}' is {repository!r:.100}, which is not of the form OWNER/NAME")
    if fields.bundled is not None and not all(map(is_plain_name, fields.bundled.split("/"))):
        raise InputError(path, None, f"'bundled' is {fields.bundled!r:.100}; it must be a folder inside the card's own")
    for key in ("max_length", "parameters"):
        number = getattr(fields, key)
        if number is not None and number < 1:
            raise InputError(path, None, f"'{key}' must be positive, not {number}")
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
