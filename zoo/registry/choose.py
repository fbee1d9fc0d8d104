"""Which device a run is on, in which precision, and with which of its options."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from zoo.errors import NotInstalledError, ZooError
from zoo.options import Option, read_options
from zoo.registry.architecture import Architecture, ArchitectureFactory
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue
from zoo.types import Device, Precision

logger = logging.getLogger(__name__)


def choose_device(catalogue: Catalogue, target: str | None, *, available: bool = True) -> tuple[Device, str]:
    """The device ``target`` names (``sdaa``, ``sdaa:1``) and the part after the colon; None is the best one available.

    Raises NotInstalledError with the reason if it has to be ``available`` here and is not.
    """
    if target is None:
        return catalogue.default_device(), ""
    name, _, selector = target.partition(":")
    device = catalogue.device(name)
    found = device.probe() if available else None
    if found is not None and not found.ok:
        raise NotInstalledError(
            f"the device '{device.name}' is not available here: {found.reason}. {found.remedy}".rstrip()
        )
    return device, selector


def choose_precision(device: Device, asked: Precision | None) -> Precision:
    """The precision asked for, or the device's default. What it costs is logged if the device would not choose it itself."""
    if asked is None:
        return next(iter(device.precisions))
    if asked not in device.precisions:
        raise ZooError(
            f"the device '{device.name}' cannot run in {asked} here; it runs in {', '.join(device.precisions)}"
        )
    info = device.precisions[asked]
    if info.cost:
        logger.log(logging.INFO if info.offered else logging.WARNING, "%s on '%s': %s", asked, device.name, info.cost)
    return asked


def device_options(device: Device, card: ModelCard, given: Mapping[str, str]) -> dict[str, str]:
    """The values of a device's options: the user's over the card's over the defaults. Raises ZooError."""
    return _over_card(f"the device '{device.name}'", device.options, card, of_device(card, device.name), given)


def of_device(card: ModelCard, device: str) -> dict[str, object]:
    """What a card says of the options of a device."""
    table = card.options.get(device)
    return dict(table) if isinstance(table, dict) else {}


def model_options(card: ModelCard, architecture: ArchitectureFactory, given: Mapping[str, str]) -> dict[str, str]:
    """The values of an architecture's options: the user's over the card's over the defaults. Raises ZooError."""
    declared = getattr(architecture, "options", Architecture.options)
    of_card = {name: value for name, value in card.options.items() if not isinstance(value, dict)}
    return _over_card(f"the architecture '{card.architecture}'", declared, card, of_card, given)


def _over_card(
    owner: str, declared: Sequence[Option], card: ModelCard, of_card: Mapping[str, object], given: Mapping[str, str]
) -> dict[str, str]:
    files = {spelling for option in declared if option.kind == "file" for spelling in (option.name, *option.spellings)}
    from_card = {name: _text(value, card.folder if name in files else None) for name, value in of_card.items()}
    read_options(f"{owner}, in the card '{card.name}',", declared, from_card)
    chosen = {name.replace("-", "_"): value for name, value in given.items()}
    spelled = {spelling: option.name for option in declared for spelling in (option.name, *option.spellings)}
    said = {spelled.get(name, name) for name in chosen}
    kept = {name: value for name, value in from_card.items() if spelled.get(name, name) not in said}
    return read_options(owner, declared, {**kept, **chosen})


def _text(value: object, folder: Path | None) -> str:
    """A card's value as a user would type it; the name of a file that lies in ``folder`` with the folder."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(folder / str(value)) if folder and (folder / str(value)).is_file() else str(value)
