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
from zoo_sdaa.options import ENGINES_VARIABLE, OPTIONS, SdaaOptions, engines, parse

PRECISIONS: Mapping[Precision, PrecisionInfo] = {
    "fp16": PrecisionInfo(offered=True),
    "fp32": PrecisionInfo(
        offered=False,
        cost="the card is made for float16, the vendor's figures are in float16, and float32 has not been measured; "
        "use it to tell rounding from a fault",
    ),
}
REMEDY = "Run inside Tecorigin's TecoInference container (conda environment tvm-build) with the cards passed in: docs/devices/sdaa.md"


class SdaaDevice:
    """One or more Tecorigin cards."""

    name = "sdaa"
    aliases: Sequence[str] = ()
    priority = 100
    precisions = PRECISIONS
    options: Sequence[Option] = OPTIONS

    def probe(self) -> Availability:
        generation = runtime.newest_generation()
        if generation is None:
            lacking = "the Python module 'tvm' (TecoInference) is not installed"
            return Availability(ok=False, reason=lacking, remedy=REMEDY)
        try:
            listing = list_cards()
            spas = engines()
        except ZooError as error:
            return Availability(ok=False, reason=str(error), remedy=REMEDY)
        details = _details(listing, generation, spas)
        if not any(card.healthy for card in listing.cards):
            reason = f"no card is healthy ({_health(listing)})"
            return Availability(ok=False, reason=reason, remedy="Health must be OK: look at teco-smi", details=details)
        return Availability(ok=True, details=details)

    def recipe(self, precision: Precision, checkpoint: Checkpoint | None = None) -> tuple[str, ...]:
        # Half precision is made by the compiler: the file stays float32.
        return ("export", "simplify")

    def open(self, artifact: Artifact, options: SessionOptions) -> Session:
        chosen = parse(options)
        if chosen.cards:
            from zoo_sdaa.multi_card_session import open_cards

            return open_cards(artifact, options, chosen)
        from zoo_sdaa.open_session import open_here

        _check_first_card(chosen)
        return open_here(self.name, artifact, options, chosen)


def _check_first_card(chosen: SdaaOptions) -> None:
    """Without a choice the runtime takes its first card; where that one is ill, choosing is the user's."""
    if "SDAA_VISIBLE_DEVICES" in os.environ:
        return
    cards = list_cards().cards
    if not cards[0].healthy:
        other = next((card.number for card in cards if card.healthy), None)
        hint = f" Choose another one: --target sdaa:{other}" if other is not None else ""
        raise ZooError(f"the card sdaa:0 is not healthy: teco-smi says '{cards[0].health}'.{hint}")


def _details(listing: Listing, generation: int, spas: int) -> dict[str, str]:
    memory = next((row.memory for card in listing.cards for row in card.rows if row.memory), "unknown")
    return {
        "cards": str(len(listing.cards)),
        "health": _health(listing),
        "memory": f"{memory} in use" if memory != "unknown" else memory,
        "driver": listing.versions.get("driver", "unknown"),
        "runtime": listing.versions.get("runtime", "unknown"),
        "generation": f"{generation} ({' and '.join(runtime.MODULES[generation])})",
        ENGINES_VARIABLE: str(spas),
    }


def _health(listing: Listing) -> str:
    """``OK`` for all, or each card's own."""
    if all(card.healthy for card in listing.cards):
        return "OK"
    return " ".join(f"{card.number}:{card.health}" for card in listing.cards)
