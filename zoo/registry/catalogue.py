"""What is installed: model cards, architectures and devices, brought by plugins.

A plugin that fails to load is recorded with its reason and breaks nothing else; it is named when somebody asks
for something that cannot be found. pluggy's own loader is not used because one broken entry point kills it, and
because it silently skips a second plugin of the same name.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from zoo.errors import NotInstalledError, PluginError, UnknownNameError, ZooError, suggestion
from zoo.registry.card import ModelCard, find_cards, load_card
from zoo.registry.hookspecs import PROJECT, STAGES, ArchitectureFactory, CatalogueSpecs, StageSpecs
from zoo.types import Availability, Device

GROUP = "zoo"
T = TypeVar("T")


@dataclass
class PluginRecord:
    """One entry point (or one object handed in by a test) and what came of loading it."""

    name: str
    distribution: str = ""
    version: str = ""
    plugin: object | None = None
    error: str = ""
    offers: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"'{self.name}' ({self.distribution} {self.version})" if self.distribution else f"'{self.name}'"


@dataclass(frozen=True)
class Offer(Generic[T]):
    """Something on offer, and who brings it."""

    value: T
    plugin: PluginRecord


class Catalogue:
    """Everything the installed plugins offer. Build one a process, in the CLI, and hand it down."""

    def __init__(self, records: Iterable[PluginRecord]) -> None:
        self.plugins = list(records)
        self._models: dict[str, list[Offer[Path]]] = {}
        self._architectures: dict[str, list[Offer[ArchitectureFactory]]] = {}
        self._devices: dict[str, list[Offer[Device]]] = {}
        self.observers: list[tuple[str, object]] = []
        for record in self.plugins:
            if not record.error:
                try:
                    self._admit(record)
                except Exception as error:  # a plugin may raise anything; the others must go on
                    record.error = _reason(error)

    @classmethod
    def installed(cls) -> Catalogue:
        """What entry points of the group ``zoo`` bring in this environment."""
        return cls(_load(point) for point in sorted(importlib.metadata.entry_points(group=GROUP)))

    @classmethod
    def of(cls, **plugins: object) -> Catalogue:
        """A catalogue of plugin objects, for tests and for programs that build their own."""
        return cls(PluginRecord(name, plugin=plugin) for name, plugin in plugins.items())

    def _admit(self, record: PluginRecord) -> None:
        """Ask one plugin what it brings. All of it or, where anything is wrong, nothing is taken."""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(CatalogueSpecs)
        manager.add_hookspecs(StageSpecs)
        assert record.plugin is not None
        manager.register(record.plugin, name=record.name)
        manager.check_pending()  # a misspelt hook fails here, not by silence later
        cards = [card for places in manager.hook.zoo_models() for card in find_cards([Path(p) for p in places])]
        architectures: dict[str, ArchitectureFactory] = {}
        for offered in manager.hook.zoo_architectures():
            architectures.update(offered)
        devices = [device for offered in manager.hook.zoo_devices() for device in offered]
        for device in devices:
            if not isinstance(device, Device):
                raise PluginError(f"zoo_devices gave {device!r}, which lacks part of zoo.types.Device")
        stages = [s for s in STAGES if any(i.plugin is record.plugin for i in getattr(manager.hook, s).get_hookimpls())]

        for path in cards:
            self._models.setdefault(path.stem, []).append(Offer(path, record))
        for name, factory in architectures.items():
            self._architectures.setdefault(name, []).append(Offer(factory, record))
        for device in devices:
            for name in (device.name, *device.aliases):
                self._devices.setdefault(name, []).append(Offer(device, record))
        if stages:
            self.observers.append((record.name, record.plugin))
        record.offers = [
            *(f"model {path.stem}" for path in cards),
            *(f"architecture {name}" for name in architectures),
            *(f"device {device.name}" for device in devices),
            *(f"stage {stage}" for stage in stages),
        ]

    @property
    def models(self) -> Mapping[str, list[Offer[Path]]]:
        """Card files by model name; more than one offer of a name is a conflict."""
        return self._models

    @property
    def devices(self) -> list[Device]:
        """Devices, those preferred by default first; names in conflict are left out."""
        single = {id(o[0].value): o[0].value for o in self._devices.values() if len(o) == 1}
        return sorted(single.values(), key=lambda device: (-device.priority, device.name))

    def conflicts(self) -> list[str]:
        """One message for each name that two plugins offer."""
        tables: list[tuple[str, Mapping[str, list[Offer[Any]]]]] = [
            ("model", self._models), ("architecture", self._architectures), ("device", self._devices),
        ]  # fmt: skip
        return [
            _conflict(kind, name, offers) for kind, table in tables for name, offers in table.items() if len(offers) > 1
        ]

    def card(self, name: str) -> ModelCard:
        """The card of the model called ``name``. Raises ZooError."""
        return load_card(self._one("model", name, self._models))

    def architecture(self, name: str) -> ArchitectureFactory:
        """What opens a checkpoint of the architecture called ``name``. Raises ZooError."""
        return self._one("architecture", name, self._architectures)

    def device(self, name: str) -> Device:
        """The device called ``name`` or by an alias of it. Raises ZooError."""
        return self._one("device", name, self._devices)

    def default_device(self) -> Device:
        """The available device of the highest priority. Raises NotInstalledError saying what each one lacks."""
        missing = []
        for device in self.devices:
            available = probe(device)
            if available.ok:
                return device
            missing.append(f"  {device.name}: {available.reason}. {available.remedy}".rstrip())
        raise NotInstalledError("\n".join(["no device is available here:", *(missing or ["  no plugin offers one"])]))

    def _one(self, kind: str, name: str, table: Mapping[str, list[Offer[T]]]) -> T:
        offers = table.get(name, [])
        if len(offers) > 1:
            raise PluginError(_conflict(kind, name, offers))
        if offers:
            return offers[0].value
        broken = [record for record in self.plugins if record.error]
        for record in broken:
            if name in (record.name, record.distribution) or suggestion(name, [record.name]):
                raise PluginError(
                    f"the plugin {record.label}, which may bring {kind} '{name}', cannot be used: {record.error}"
                )
        remark = "".join(f"\nThe plugin {record.label} could not be loaded: {record.error}" for record in broken)
        raise UnknownNameError(kind, name, table, remark)


def probe(device: Device) -> Availability:
    """``device.probe()``, with a plugin that breaks its promise not to raise reported as unavailable."""
    try:
        return device.probe()
    except Exception as error:  # the promise is the plugin's; a listing must not die of it
        return Availability(ok=False, reason=f"its probe failed: {_reason(error)}")


def _load(point: importlib.metadata.EntryPoint) -> PluginRecord:
    distribution = point.dist
    record = PluginRecord(
        point.name,
        distribution.metadata["Name"] if distribution else "",
        distribution.version if distribution else "",
    )
    try:
        record.plugin = point.load()
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        record.error = _reason(error)
    return record


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"it needs the Python module '{error.name}', which is not installed (try: pip install {package})"
    if isinstance(error, ZooError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _conflict(kind: str, name: str, offers: list[Offer[Any]]) -> str:
    plugins = " and ".join(offer.plugin.label for offer in offers)
    return f"{kind} '{name}' is offered by more than one plugin: {plugins}. Uninstall all but one of them."
