"""The steps of recipes: the usual facts about a model file, which orders make sense, and what a recipe costs and makes.

A step says what it needs and what it takes away, so a recipe that would do harm is refused before anything is made: onnxsim
rewrites the pattern of nodes that transformer fusion looks for, and after it nothing is fused. What a step is stands in its
``zoo.types.Step`` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zoo.errors import NotInstalledError, PluginError, UnknownNameError, suggestion
from zoo.export.modules import missing_packages
from zoo.registry.participants import Offered
from zoo.types import ExportOffer, ExportRequest, Precision, Step

CHECKPOINT = "a checkpoint"
GRAPH = "a model file"
AS_EXPORTED = "the nodes as they were exported"
FLOAT32 = "float32 weights"
STANDARD = "standard operators alone"

EXPORT = "export"
"""The name of the step that starts from a checkpoint."""
SPLIT = 2_000_000_000
"""torch writes a graph past 2 GiB as a file a tensor, which are then joined into one."""


class Steps:
    """Every step that installed plugins offer."""

    def __init__(self, offered: Mapping[str, Offered[Step]]) -> None:
        self._offers = {name: offer for name, offer in offered.items() if not offer.value.exporter}
        self._exporters = {offer.value.exporter: offer for offer in offered.values() if offer.value.exporter}
        self._spellings = {old: name for name, offer in self._offers.items() for old in offer.value.spellings}

    def named(self, recipe: Iterable[str]) -> tuple[str, ...]:
        """The recipe with today's names for steps that were called otherwise."""
        return tuple(self._spellings.get(name, name) for name in recipe)

    def step(self, name: str) -> Step | None:
        """The step called ``name``, or None if no plugin offers it; not the export."""
        offer = self._offers.get(self._spellings.get(name, name))
        return offer.value if offer else None

    def owner(self, step: Step) -> str:
        """Plugin, distribution and version that a step comes from."""
        offers = [*self._offers.values(), *self._exporters.values()]
        return next((offer.plugin.label for offer in offers if offer.value is step), "")

    @property
    def exporters(self) -> list[str]:
        """What ``--exporter`` takes."""
        return sorted(self._exporters)

    def check(self, recipe: Sequence[str], *, from_file: bool = False) -> None:
        """Raises PluginError if a step is not known, needs what is not there, or needs what an earlier step has taken away."""
        here = {GRAPH, AS_EXPORTED, FLOAT32, STANDARD} if from_file else {CHECKPOINT}
        taken: dict[str, str] = {}
        for name in self.named(recipe):
            if name == EXPORT:
                if CHECKPOINT not in here:
                    raise PluginError(
                        f"the recipe {', '.join(recipe)} cannot work: 'export' needs a checkpoint, and a file is given"
                    )
                here |= {GRAPH, AS_EXPORTED, FLOAT32, STANDARD}
                continue
            step = self._known(name)
            for fact in sorted(step.needs - here):
                cause = (
                    f"the step '{taken[fact]}' before it removes them"
                    if fact in taken
                    else "no step before it makes them"
                )
                raise PluginError(f"the recipe {', '.join(recipe)} cannot work: '{name}' needs {fact}, and {cause}")
            here |= step.gives
            for fact in step.takes & here:
                here.discard(fact)
                taken[fact] = name

    def _known(self, name: str) -> Step:
        step = self.step(name)
        if step is None:
            known = [EXPORT, *self._offers]
            close = suggestion(name, known)
            remark = f"Did you mean '{close}'?" if close else f"Known: {', '.join(known)}."
            raise PluginError(f"no installed plugin offers the step '{name}'. {remark}")
        return step

    def only_faster(self, recipe: Iterable[str]) -> bool:
        """Whether a file that came with the checkpoint is run without these steps."""
        return all((step := self.step(name)) is not None and step.only_faster for name in recipe)

    def lowering(self, recipe: Iterable[str]) -> tuple[str, ...]:
        """The steps of the recipe that lower the precision."""
        return tuple(name for name in recipe if (step := self.step(name)) is not None and step.lowers_to)

    def for_file(self, recipe: Sequence[str]) -> tuple[str, ...]:
        """The steps still to do on a model file the user hands over: those after the export if they are needed, else none.

        How its graph is written is the user's choice: a file that was simplified or fused elsewhere is run as it is, unless the recipe
        has a step that no device that asks for it can do without.
        """
        rest = tuple(name for name in self.named(recipe) if name != EXPORT)
        found = [self.step(name) for name in rest]
        return rest if any(step is None or not (step.only_faster or step.may_fail) for step in found) else ()

    def precision_made(self, recipe: Sequence[str], asked: Precision) -> Precision:
        """The precision of the file itself: a device that lowers it when it compiles shares a float32 file with its other precisions."""
        steps = [self.step(name) for name in recipe if name != EXPORT]
        if any(step is None for step in steps):
            return asked
        return next((step.lowers_to for step in steps if step and step.lowers_to), "fp32")

    def check_modules(self, recipe: Sequence[str]) -> None:
        """Raises NotInstalledError naming the packages that steps after the export lack; a step that may fail may lack its own."""
        alone = len(recipe) == 1
        steps = [self._known(name) for name in self.named(recipe) if name != EXPORT]
        needed = {
            module: package for step in steps if alone or not step.may_fail for module, package in step.modules.items()
        }
        missing = missing_packages(needed)
        if missing:
            raise NotInstalledError(
                f"making the model file ({', '.join(recipe)}) needs {', '.join(missing)}, which is not installed here: "
                "pip install 'zoo-runner[export]'. Without it, run a model file made elsewhere, with its tokenizer and config"
            )

    def exporter(self, request: ExportRequest) -> tuple[Step, ExportOffer]:
        """Who exports this checkpoint: the one asked for, else the available one of the lowest cost.

        Raises NotInstalledError or ZooError with every exporter's reason if there is none.
        """
        if request.exporter and request.exporter not in self._exporters:
            raise UnknownNameError("exporter", request.exporter, self._exporters)
        asked = [request.exporter] if request.exporter else self.exporters
        answers = {name: self._ask(self._exporters[name].value, request) for name in asked}
        able = {name: offer for name, offer in answers.items() if offer.available}
        if not able:
            lines = [f"  {name}: {offer.reason}. {offer.remedy}".rstrip() for name, offer in answers.items()]
            raise NotInstalledError(
                "\n".join([
                    "no exporter can make a model file of this checkpoint here:", *(lines or ["  no plugin offers one"]),
                    "Without one, run a model file made elsewhere, with its tokenizer and config",
                ])
            )  # fmt: skip
        best = min(able, key=lambda name: (able[name].cost_seconds, name))
        return self._exporters[best].value, able[best]

    def _ask(self, step: Step, request: ExportRequest) -> ExportOffer:
        missing = missing_packages(step.modules)
        if missing:
            return ExportOffer(
                available=False,
                reason=f"{', '.join(missing)} is not installed",
                remedy="pip install 'zoo-runner[export]'",
            )
        if step.can is None:
            return ExportOffer(available=True)
        try:
            offer: object = step.can(request)
            if isinstance(offer, ExportOffer):
                return offer
            return ExportOffer(available=False, reason=f"it gave {offer!r:.200}, which is not a zoo.api.ExportOffer")
        except Exception as error:  # a plugin may raise anything; another exporter may do
            return ExportOffer(available=False, reason=f"it failed when it was asked: {type(error).__name__}: {error}")


def space_needed(steps: Iterable[Step], weights: int) -> int:
    """Bytes of disk that the steps take at most, for ``weights`` bytes in float32: a step's input lies beside its output."""
    before, most = 0.0, 0.0
    for step in steps:
        space = step.space_split if weights > SPLIT and step.space_split is not None else step.space
        most = max(most, before + space)
        before = min(space, 1.0)
    return int(most * weights)
