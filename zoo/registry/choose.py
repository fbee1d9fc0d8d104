"""Which device a run is on, in which precision, and with which of its options."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from zoo.errors import NotInstalledError, ZooError
from zoo.options import read_options
from zoo.registry.architecture import Architecture, ArchitectureFactory
from zoo.registry.card import ModelCard
from zoo.registry.catalogue import Catalogue, probe
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
    found = probe(device) if available else None
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


def device_options(device: Device, given: Mapping[str, str]) -> dict[str, str]:
    """The values of a device's options, defaults included. Raises ZooError."""
    return read_options(f"the device '{device.name}'", device.options, given)


def model_options(card: ModelCard, architecture: ArchitectureFactory, given: Mapping[str, str]) -> dict[str, str]:
    """The values of an architecture's options: the user's over the card's over the defaults. Raises ZooError."""
    declared = getattr(architecture, "options", Architecture.options)
    of_card = {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in card.options.items()
    }
    owner = f"the architecture '{card.architecture}'"
    read_options(f"{owner}, in the card '{card.name}',", declared, of_card)
    chosen = {name.replace("-", "_"): value for name, value in given.items()}
    spelled = {spelling: option.name for option in declared for spelling in (option.name, *option.spellings)}
    said = {spelled.get(name, name) for name in chosen}
    kept = {name: value for name, value in of_card.items() if spelled.get(name, name) not in said}
    return read_options(owner, declared, {**kept, **chosen})
