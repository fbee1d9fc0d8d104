"""SDAA as a device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from zoo.api import (
    Artifact,
    Availability,
    Checkpoint,
    Option,
    Precision,
    PrecisionInfo,
    Session,
    SessionOptions,
    ZooError,
)
from zoo_sdaa import runtime
from zoo_sdaa.cards import Listing, list_cards
from zoo_sdaa.choose_cards import choose_cards
from zoo_sdaa.options import ENGINES_VARIABLE, OPTIONS

PRECISIONS: Mapping[Precision, PrecisionInfo] = {
    "fp16": PrecisionInfo(offered=True),
    "fp32": PrecisionInfo(
        offered=False,
        cost="the card is made for float16, Tecorigin's figures are in float16, and float32 has not been measured; "
        "use it to tell rounding from a fault",
    ),
}
REMEDY = (
    f"Run inside Tecorigin's TecoInference container (conda environment {runtime.ENVIRONMENT}) with the cards passed in: "
    "docs/devices/sdaa.md"
)


class SdaaDevice:
    """One or more Tecorigin cards."""

    name = "sdaa"
    resource = "SDAA"
    aliases: Sequence[str] = ()
    priority = 100
    precisions = PRECISIONS
    options: Sequence[Option] = OPTIONS

    def probe(self) -> Availability:
        generations = runtime.installed_generations()
        if not generations:
            return Availability(ok=False, reason=_no_runtime(), remedy=REMEDY)
        try:
            listing = list_cards()
        except ZooError as error:
            return Availability(ok=False, reason=str(error), remedy=REMEDY)
        details = _details(listing, generations[0])
        if not any(card.healthy for card in listing.cards):
            reason = f"no card is healthy ({listing.health})"
            return Availability(ok=False, reason=reason, remedy="Health must be OK: look at teco-smi", details=details)
        try:
            first = choose_cards("", listing=listing)[0]
            details = {**details, ENGINES_VARIABLE: str(first.engines)}
        except ZooError as error:
            return Availability(ok=False, reason=str(error), details=details)
        return Availability(ok=True, details=details)

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        # Half precision is made by the compiler: the file stays float32.
        return ("export", "simplify")

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        from zoo_sdaa.open_session import open_session

        return open_session(artifact, options)


def _no_runtime() -> str:
    active = os.environ.get("CONDA_DEFAULT_ENV", "")
    where = f" in the active conda environment '{active}'" if active and active != runtime.ENVIRONMENT else ""
    return f"the Python module 'tvm' (TecoInference) is not installed{where}"


def _details(listing: Listing, generation: int) -> dict[str, str]:
    memory = next((row.memory for card in listing.cards for row in card.rows if row.memory), "unknown")
    modules = [module for module in runtime.MAIN_MODULE.values() if runtime.found(module)]
    return {
        "cards": str(len(listing.cards)),
        "health": listing.health,
        "memory": f"{memory} in use" if memory != "unknown" else memory,
        "driver": listing.versions.get("driver", "unknown"),
        "runtime": listing.versions.get("runtime", "unknown"),
        "generation": f"{generation} (installed: {' and '.join(modules)})",
    }
