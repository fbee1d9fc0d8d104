"""What is installed: cards, architectures, devices, export steps and commands, brought by plugins.

A plugin that fails to load is recorded with its reason and breaks nothing else; it is named when somebody asks
for something that cannot be found. pluggy's own loader is not used because one broken entry point kills it, and
because it silently skips a second plugin of the same name.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from zoo.errors import NotInstalledError, PluginError, UnknownNameError, suggestion
from zoo.options import Option
from zoo.registry.architecture import Architecture, ArchitectureFactory
from zoo.registry.card import ModelCard, find_cards, load_card
from zoo.registry.hookspecs import CatalogueSpecs, StageSpecs
from zoo.registry.installed_device import InstalledDevice
from zoo.registry.markers import API_VERSION, PROJECT, STAGES
from zoo.registry.participants import Offered, Participant, PluginRecord, load_object, reason_of, register
from zoo.types import CacheFolder, CommandOffer, Device, Step

GROUP = "zoo"
API_ATTRIBUTE = "ZOO_API_VERSION"
"""A plugin may say with it which version of ``zoo.api`` it was written for."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""Names that a user can type after ``--target`` or as a word of their own."""
T = TypeVar("T")


class Table(Generic[T]):
    """What plugins offer of one kind, by name; two offers of a name are a conflict."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.offers: dict[str, list[Offered[T]]] = {}

    def add(self, name: str, value: T, plugin: PluginRecord) -> None:
        self.offers.setdefault(name, []).append(Offered(value, plugin))

    def single(self) -> dict[str, Offered[T]]:
        """The offers without those in conflict."""
        return {name: offers[0] for name, offers in self.offers.items() if len(offers) == 1}

    def conflicts(self) -> list[str]:
        """One message for each name that two plugins offer."""
        return [self.conflict(name) for name, offers in self.offers.items() if len(offers) > 1]

    def conflict(self, name: str) -> str:
        plugins = " and ".join(offer.plugin.label for offer in self.offers[name])
        return f"{self.kind} '{name}' is offered by more than one plugin: {plugins}. Uninstall all but one of them."


class Catalogue:
    """Everything the installed plugins offer. Build one a process, in the CLI, and hand it down."""

    def __init__(self, records: Iterable[PluginRecord]) -> None:
        self.plugins = list(records)
        self._models: Table[Path] = Table("model")
        self._architectures: Table[ArchitectureFactory | str] = Table("architecture")
        self._devices: Table[InstalledDevice] = Table("device")
        self._steps: Table[Step] = Table("step")
        self._commands: Table[CommandOffer] = Table("command")
        self.caches: list[CacheFolder] = []
        self.observers: list[Participant] = []
        for record in self.plugins:
            if not record.error:
                try:
                    self._admit(record)
                except Exception as error:  # a plugin may raise anything; the others must go on
                    record.error = reason_of(error)

    @classmethod
    def installed(cls) -> Catalogue:
        """What entry points of the group ``zoo`` bring in this environment."""
        return cls(_load(point) for point in sorted(importlib.metadata.entry_points(group=GROUP)))

    @classmethod
    def of(cls, **plugins: object) -> Catalogue:
        """A catalogue of plugin objects, for tests and for programs that build their own."""
        return cls(PluginRecord(name, plugin=plugin) for name, plugin in plugins.items())

    def _admit(self, record: PluginRecord) -> None:
        """Ask one plugin what it brings. All of it or, if anything is wrong, nothing is taken."""
        _check_version(record)
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(CatalogueSpecs)
        manager.add_hookspecs(StageSpecs)
        assert record.plugin is not None
        register(manager, Participant(record.name, record.plugin, record.label))
        hook = manager.hook
        cards = [card for places in hook.zoo_models() for card in find_cards([Path(place) for place in places])]
        architectures = {name: made for offered in hook.zoo_architectures() for name, made in offered.items()}
        devices = [_checked_device(device, record) for offered in hook.zoo_devices() for device in offered]
        steps = [_checked("zoo_steps", step, Step) for offered in hook.zoo_steps() for step in offered]
        commands = {name: made for offered in hook.zoo_commands() for name, made in offered.items()}
        caches = [_checked("zoo_caches", cache, CacheFolder) for offered in hook.zoo_caches() for cache in offered]
        stages = [s for s in STAGES if any(i.plugin is record.plugin for i in getattr(hook, s).get_hookimpls())]

        for path in cards:
            self._models.add(path.stem, path, record)
        for name, factory in architectures.items():
            self._architectures.add(name, factory, record)
        for device in devices:
            for name in (device.name, *device.aliases):
                self._devices.add(name, device, record)
        for step in steps:
            self._steps.add(step_key(step), step, record)
        for name, command in commands.items():
            self._commands.add(name, _checked("zoo_commands", command, CommandOffer), record)
        self.caches += caches
        if stages:
            self.observers.append(Participant(record.name, record.plugin, record.label))
        record.offers = [
            *(f"model {path.stem}" for path in cards),
            *(f"architecture {name}" for name in architectures),
            *(f"device {device.name}" for device in devices),
            *(f"step {step_key(step)}" for step in steps),
            *(f"command {name}" for name in commands),
            *(f"stage {stage}" for stage in stages),
        ]

    @property
    def models(self) -> Mapping[str, list[Offered[Path]]]:
        """Card files by model name; more than one offer of a name is a conflict."""
        return self._models.offers

    @property
    def architectures(self) -> list[str]:
        """Names of the architectures; those in conflict are left out."""
        return sorted(self._architectures.single())

    @property
    def devices(self) -> list[Device]:
        """Devices, those preferred by default first; names in conflict are left out."""
        single = {id(offer.value): offer.value for offer in self._devices.single().values()}
        return sorted(single.values(), key=lambda device: (-device.priority, device.name))

    @property
    def steps(self) -> Mapping[str, Offered[Step]]:
        """Export steps by name, those that start from a checkpoint as ``export/EXPORTER``; names in conflict are left out."""
        return self._steps.single()

    @property
    def commands(self) -> Mapping[str, Offered[CommandOffer]]:
        """Commands that plugins add, by name; names in conflict are left out."""
        return self._commands.single()

    def conflicts(self) -> list[str]:
        """One message for each name that two plugins offer."""
        tables: Sequence[Table[Any]] = (
            self._models, self._architectures, self._devices, self._steps, self._commands,
        )  # fmt: skip
        return [message for table in tables for message in table.conflicts()]

    def card(self, name: str) -> ModelCard:
        """The card of the model called ``name``. Raises ZooError."""
        return load_card(self._one(self._models, name).value)

    def architecture(self, name: str) -> ArchitectureFactory:
        """What opens a checkpoint of the architecture called ``name``, imported now. Raises ZooError."""
        offer = self._one(self._architectures, name)
        if isinstance(offer.value, str):
            return load_object(offer.value, f"the plugin {offer.plugin.label}")  # type: ignore[no-any-return]
        return offer.value

    def model_participant(self, architecture: str, model: Architecture) -> Participant:
        """An opened model as it takes part in a run."""
        return Participant("model", model, self._one(self._architectures, architecture).plugin.label)

    def device(self, name: str) -> Device:
        """The device called ``name`` or by an alias of it. Raises ZooError."""
        return self._one(self._devices, name).value

    def device_participant(self, device: Device) -> Participant:
        """A device as it takes part in a run."""
        offers = [offer for offers in self._devices.offers.values() for offer in offers if offer.value is device]
        return (
            Participant("device", offers[0].value.inner, offers[0].plugin.label)
            if offers
            else Participant("device", device)
        )

    def default_device(self) -> Device:
        """The available device of the highest priority. Raises NotInstalledError saying what each one lacks."""
        missing = []
        for device in self.devices:
            available = device.probe()
            if available.ok:
                return device
            missing.append(f"  {device.name}: {available.reason}. {available.remedy}".rstrip())
        raise NotInstalledError("\n".join(["no device is available here:", *(missing or ["  no plugin offers one"])]))

    def device_options(self) -> Iterator[tuple[Device, Option]]:
        """Every option that an installed device declares."""
        return ((device, option) for device in self.devices for option in device.options)

    def _one(self, table: Table[T], name: str) -> Offered[T]:
        offers = table.offers.get(name, [])
        if len(offers) > 1:
            raise PluginError(table.conflict(name))
        if offers:
            return offers[0]
        broken = [record for record in self.plugins if record.error]
        for record in broken:
            if name in (record.name, record.distribution) or suggestion(name, [record.name]):
                raise PluginError(
                    f"the plugin {record.label}, which may bring {table.kind} '{name}', cannot be used: {record.error}"
                )
        remark = "".join(f"\nThe plugin {record.label} could not be loaded: {record.error}" for record in broken)
        raise UnknownNameError(table.kind, name, table.offers, remark)


def step_key(step: Step) -> str:
    """The name of a step in the catalogue: several plugins may offer the step ``export``."""
    return f"{step.name}/{step.exporter}" if step.exporter else step.name


def _checked_device(device: object, plugin: PluginRecord) -> InstalledDevice:
    """Raises PluginError naming what the object lacks of the protocol."""
    # Looked up without evaluating properties: some ask the hardware, and a catalogue is built for every command.
    lacking = [name for name in _members(Device) if inspect.getattr_static(device, name, None) is None]
    if lacking:
        raise PluginError(f"zoo_devices gave {device!r}, which lacks {', '.join(lacking)} of zoo.api.Device")
    made: Device = device  # type: ignore[assignment]
    for name in (made.name, *made.aliases):
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise PluginError(
                f"the device name {name!r} cannot be typed as a `device`: use small letters, digits, '.', '_' and '-'"
            )
    return InstalledDevice(made, plugin.label)


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_") and _is_member(vars(protocol)[name])]


def _is_member(value: object) -> bool:
    return callable(value) or isinstance(value, property)


def _checked(hook: str, value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise PluginError(f"{hook} gave {value!r}, which is not a zoo.api.{kind.__name__}")
    return value


def _check_version(record: PluginRecord) -> None:
    wanted = getattr(record.plugin, API_ATTRIBUTE, API_VERSION)
    if wanted != API_VERSION:
        raise PluginError(f"it was written for version {wanted!r} of zoo.api; this is version {API_VERSION}")


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
        record.error = reason_of(error, point.module)
    return record
