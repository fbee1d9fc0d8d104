"""Which cards a run uses, and what the process of each one has to find in its environment.

No published call of TecoInference names the card an engine is made on; the runtime takes what ``SDAA_VISIBLE_DEVICES`` shows it when it
is loaded (Tecorigin's documents choose cards this way for all their frameworks). So each chosen card gets a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from zoo.api import ZooError
from zoo_sdaa.cards import Card, Listing, list_cards
from zoo_sdaa.options import DEFAULT_ENGINES, ENGINES_VARIABLE, engines

VISIBLE = "SDAA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class ChosenCard:
    """A card for one process. ``spas`` is how many SPAs ``teco-smi`` shows it to have; None if it lists whole cards."""

    name: str
    spas: int | None
    environment: Mapping[str, str] = field(default_factory=dict)
    passed_over: str = ""
    """Cards before it that are not healthy, and why."""

    @property
    def engines(self) -> int:
        """Engines that its process makes, one an SPA. Raises ZooError if the user's number is wrong."""
        return int(self.environment[ENGINES_VARIABLE]) if ENGINES_VARIABLE in self.environment else engines()


def choose_cards(numbers: str, *, spa: int | None = None, listing: Listing | None = None) -> list[ChosenCard]:
    """The cards that ``all`` or ``0,2`` names; the first healthy one for ``""``. ``spa`` is the SPA that the user asked for.

    Raises ZooError for a card that is absent or not healthy, and for more SPAs than a card has: before anything is compiled.
    """
    listing = listing or list_cards()
    if VISIBLE in os.environ:
        if numbers:
            raise ZooError(
                f"cards are chosen by the environment variable {VISIBLE} (it is '{os.environ[VISIBLE]}') or by `device`, not by both: "
                "unset the one, or give `device` as sdaa"
            )
        chosen = [_chosen_by_environment(listing)]
    else:
        chosen = _named(listing, numbers) if numbers else [_first_healthy(listing.cards, listing)]
    for each in chosen:
        _check_spas(each, spa)
    return chosen


def _named(listing: Listing, numbers: str) -> list[ChosenCard]:
    present = {card.number: card for card in listing.cards}
    wanted = sorted(present) if numbers == "all" else [int(number) for number in numbers.split(",")]
    for number in wanted:
        if number not in present:
            raise ZooError(f"there is no card sdaa:{number}; teco-smi lists {', '.join(map(str, sorted(present)))}")
        if not present[number].healthy:
            raise ZooError(f"the card sdaa:{number} is not healthy: teco-smi says '{present[number].health}'")
    return [_chosen(present[number], listing) for number in wanted]


def _first_healthy(cards: Sequence[Card], listing: Listing) -> ChosenCard:
    for place, card in enumerate(cards):
        if card.healthy:
            passed_over = ", ".join(f"sdaa:{each.number} ({each.health})" for each in cards[:place])
            return replace(_chosen(card, listing), passed_over=passed_over)
    raise ZooError(f"no card is healthy ({Listing(cards, {}).health}); Health must be OK: look at teco-smi")


def _chosen(card: Card, listing: Listing) -> ChosenCard:
    environment = {VISIBLE: card.devices} if len(listing.cards) > 1 else {}
    spas = len(card.rows) if listing.rows_are_spas else None
    return ChosenCard(name=f"sdaa:{card.number}", spas=spas, environment={**environment, **_engines(spas)})


def _chosen_by_environment(listing: Listing) -> ChosenCard:
    """What ``SDAA_VISIBLE_DEVICES`` shows: all of it, or the first healthy card of it."""
    indices = [part.strip() for part in os.environ[VISIBLE].split(",")]
    cards = [
        replace(card, rows=rows)
        for card in listing.cards
        if (rows := [row for row in card.rows if str(row.index) in indices])
    ]
    cards.sort(key=lambda card: min(indices.index(str(row.index)) for row in card.rows))
    if sum(len(card.rows) for card in cards) < len(indices):
        return ChosenCard(
            name="sdaa", spas=None
        )  # teco-smi counts differently here, so it tells nothing of these devices
    first = _first_healthy(cards, listing)
    if not all(card.healthy for card in cards):
        return first
    spas = len(indices) if listing.rows_are_spas else None
    return ChosenCard(name=first.name, spas=spas, environment=_engines(spas))


def _engines(spas: int | None) -> dict[str, str]:
    """How many engines the process makes, if teco-smi tells the SPAs and the user has not said it."""
    if spas is None or ENGINES_VARIABLE in os.environ:
        return {}
    return {ENGINES_VARIABLE: str(min(spas, DEFAULT_ENGINES))}


def _check_spas(card: ChosenCard, spa: int | None) -> None:
    wanted = card.engines
    if card.spas is None:
        return
    if wanted > card.spas:
        raise ZooError(
            f"the environment variable {ENGINES_VARIABLE} is {wanted}, and {card.name} has {card.spas} SPAs by teco-smi: "
            f"unset it, or set it to {card.spas} or less"
        )
    if spa is not None and spa >= card.spas:
        raise ZooError(f"the device option spa is {spa}, and {card.name} has {card.spas} SPAs, counted from 0")
