"""From what a user names to a model card: ``NAME``, ``hf:ORG/NAME[@REVISION]``, ``./card.toml`` or ``./FOLDER``.

A checkpoint without a card is opened if an installed architecture says that it can (``Architecture.offer``); everything else is refused
by name, with the way out.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from zoo.checkpoints.download import commit_of
from zoo.checkpoints.licences import UNKNOWN
from zoo.checkpoints.model_config import ModelConfig, read_config
from zoo.checkpoints.sources import CheckpointRequest, find_checkpoint, is_offline
from zoo.errors import PluginError, UnknownNameError, ZooError
from zoo.files import resolved
from zoo.registry.architecture import Architecture, Requirements
from zoo.registry.card import COMMIT, ModelCard, load_card
from zoo.registry.catalogue import Catalogue
from zoo.types import CheckpointOffer

logger = logging.getLogger(__name__)

HUB = "hf:"
HUB_NAME = re.compile(r"hf:(?!.*\.\.)(?P<hub>[A-Za-z0-9][\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?", re.ASCII)
BARE_HUB_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]*/\w[\w.-]*(@\w[\w./-]*)?", re.ASCII)
FEW = Requirements(
    files=("config.json",),
    optional_files=("README.md", "modules.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"),
)
"""What is fetched of a repository to tell what it is."""
LICENCE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Named:
    """The model that a name stands for. ``name`` is the name with its revision pinned, which stands for the same model again.

    ``folder`` is set if the name is a folder's: the checkpoint lies there.
    """

    name: str
    card: ModelCard
    folder: Path | None = None


def short_name(name: str) -> str:
    """The name for files and folders: ``hf:ORG/NAME@REVISION`` is ``ORG__NAME``, ``./FOLDER`` is ``FOLDER``."""
    if found := HUB_NAME.fullmatch(name):
        return found["hub"].replace("/", "__")
    return resolved(Path(name)).name.removesuffix(".toml") if _is_path(name) else name


def check_name(catalogue: Catalogue, name: str) -> None:
    """Raises ZooError for a name that cannot stand for a model; asks neither the hub nor an architecture."""
    if name.startswith(HUB):
        _parse(name)
    elif _is_path(name):
        _existing(name)
    else:
        _card(catalogue, name)


def resolve(catalogue: Catalogue, name: str, *, offline: bool = False) -> Named:
    """The model called ``name``. Raises ZooError saying what it is and what to do if it cannot be run."""
    if name.startswith(HUB):
        return _from_hub(catalogue, name, offline=is_offline(offline))
    if not _is_path(name):
        return Named(name=name, card=_card(catalogue, name))
    path = _existing(name)
    if path.is_dir():
        return _from_folder(catalogue, name, path)
    return Named(name=name, card=load_card(path))


def _from_hub(catalogue: Catalogue, name: str, *, offline: bool) -> Named:
    hub, revision = _parse(name)
    known = _card_of(catalogue, hub)
    if known and revision in (None, known.revision):
        return Named(name=known.name, card=known)
    if revision and not COMMIT.fullmatch(revision):
        revision = commit_of(hub, revision, offline=offline)
    if known:
        # Scores are tied to a revision, so the card's do not go with another.
        logger.info(
            "template and settings are those of the card '%s', which is for revision %s", known.name, known.revision
        )
        return _pinned(
            name, msgspec.structs.replace(known, name=short_name(name), revision=revision, reference=[], golden=[])
        )
    card = ModelCard(
        name=short_name(name), folder=Path(), description=f"{hub} on the hub", architecture="", license=UNKNOWN,
        languages=[], max_length=1, hub=hub, revision=revision,
    )  # fmt: skip
    found = find_checkpoint(card, CheckpointRequest(requires=FEW, weights=False, offline=offline))
    architecture, offer = _architecture(catalogue, found.folder, name)
    made = msgspec.structs.replace(
        card, architecture=architecture, max_length=offer.max_length, revision=found.revision or revision,
        license=_licence(found.folder),
    )  # fmt: skip
    return _pinned(name, made)


def _pinned(name: str, card: ModelCard) -> Named:
    pinned = f"{HUB}{card.hub}@{card.revision}" if card.revision else name
    return Named(name=pinned, card=card)


def _from_folder(catalogue: Catalogue, name: str, folder: Path) -> Named:
    if not (folder / "config.json").is_file():
        raise ZooError(f"the folder {name} has no config.json, so it holds no checkpoint that transformers would know")
    architecture, offer = _architecture(catalogue, folder, name)
    card = ModelCard(
        name=short_name(name), folder=folder, description=f"the checkpoint in {name}", architecture=architecture,
        license=_licence(folder), languages=[], max_length=offer.max_length,
    )  # fmt: skip
    return Named(name=name, card=card, folder=folder)


def _architecture(catalogue: Catalogue, folder: Path, name: str) -> tuple[str, CheckpointOffer]:
    """Who can open the checkpoint without a card. Raises ZooError with the reason if nobody can."""
    config = read_config(folder)
    offers = {one: _asked(catalogue, one, folder) for one in catalogue.architectures}
    able = {one: offer for one, offer in offers.items() if offer.available}
    if len(able) > 1:
        raise ZooError(
            f"{name} may be opened as {' and as '.join(sorted(able))}: write a card that names its architecture"
        )
    if able:
        return next(iter(able.items()))
    raise ZooError(f"{name} cannot be run: {_refusal(config, list(offers.values()))}")


def _asked(catalogue: Catalogue, architecture: str, folder: Path) -> CheckpointOffer:
    offer = getattr(catalogue.architecture(architecture), "offer", Architecture.offer)
    answer = offer(folder)
    if not isinstance(answer, CheckpointOffer):
        raise PluginError(
            f"the architecture '{architecture}' gave {answer!r} from offer, which is not a zoo.api.CheckpointOffer"
        )
    return answer


def _refusal(config: ModelConfig, offers: list[CheckpointOffer]) -> str:
    for offer in offers:
        if offer.reason:
            return f"{offer.reason}. {offer.remedy}".rstrip()
    if config.auto_map:
        return (
            f"its architecture '{config.kind}' is code in its own repository (config.json has 'auto_map'), and such code is never run. "
            "Write a plugin with the architecture, or name a model file made elsewhere (`ckpt`) with a card for its tokenizer"
        )
    return (
        f"no installed architecture knows '{config.kind}' (model type '{config.model_type}'). "
        "Write a plugin with it, or a card that names an architecture that reads its tokenizer, and name a model file (`ckpt`)"
    )


def _card(catalogue: Catalogue, name: str) -> ModelCard:
    try:
        return catalogue.card(name)
    except UnknownNameError as error:
        if BARE_HUB_NAME.fullmatch(name):
            raise ZooError(f"{error} A repository on the hub is written {HUB}{name}") from error
        if Path(name).is_dir():
            raise ZooError(f"{error} The folder of that name is written ./{name}") from error
        raise


def _card_of(catalogue: Catalogue, hub: str) -> ModelCard | None:
    """The card that is for this repository."""
    return next((card for card in _cards(catalogue) if card.hub and card.hub.casefold() == hub.casefold()), None)


def _cards(catalogue: Catalogue) -> Iterator[ModelCard]:
    for name in sorted(catalogue.models):
        try:
            yield catalogue.card(name)
        except ZooError:
            continue  # told where cards are listed


def _parse(name: str) -> tuple[str, str | None]:
    found = HUB_NAME.fullmatch(name)
    if found is None:
        raise ZooError(f"'{name}' is not a repository on the hub: write {HUB}ORG/NAME or {HUB}ORG/NAME@REVISION")
    return found["hub"], found["revision"]


def _is_path(name: str) -> bool:
    """Whether it is written as a path; of what might be a repository's name, whether it exists."""
    if name.startswith((".", "~", "/", "\\")) or name.endswith(".toml"):
        return True
    return ("/" in name or "\\" in name) and Path(name).exists()


def _existing(name: str) -> Path:
    path = Path(os.path.expanduser(name))  # noqa: PTH111  # which leaves the home of a user who is not there as it is written
    if not path.exists():
        raise ZooError(f"there is no model card or folder {name}")
    if path.is_file() and path.suffix != ".toml":
        raise ZooError(f"{name} is neither a folder with a checkpoint nor a model card (*.toml)")
    return path.absolute()


def _licence(folder: Path) -> str:
    """What the front matter of the repository's README says."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:20_000]
    except OSError:
        return UNKNOWN
    front = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
    found = LICENCE.search(front)
    return found[1] if found else UNKNOWN
