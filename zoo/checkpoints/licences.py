"""A licence that asks for more than its text to be kept is named when its model is first used on a machine."""

from __future__ import annotations

import logging
from contextlib import suppress

from zoo.paths import zoo_home
from zoo.registry.card import ModelCard

logger = logging.getLogger(__name__)

FREE = frozenset({
    "0bsd", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc-by-4.0", "cc0-1.0", "isc", "mit", "unlicense", "zlib",
})  # fmt: skip
"""SPDX names, in small letters, of licences that allow any use."""
UNKNOWN = "unknown"
"""The licence of a checkpoint that names none; a user's own folder often does not."""


def is_free(licence: str) -> bool:
    return licence.casefold() in FREE


def name_at_first_use(card: ModelCard) -> None:
    """Log the licence, once for each model and licence, unless it allows any use."""
    if is_free(card.license) or (card.license == UNKNOWN and not card.hub):
        return
    told = zoo_home() / "licences" / f"{card.name}.txt"
    with suppress(OSError, ValueError):
        if told.read_text(encoding="utf-8").strip() == card.license:
            return
    logger.warning("the licence of '%s' is %s: %s. This is reported once", card.name, card.license, _what_it_asks(card))
    with suppress(OSError):  # said again next time, which does no harm
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_text(card.license + "\n", encoding="utf-8")


def _what_it_asks(card: ModelCard) -> str:
    place = f"https://huggingface.co/{card.hub}" if card.hub else "its publisher's page"
    if "nc" in card.license.casefold().replace("_", "-").split("-"):
        return f"NOT for commercial use. Its text is at {place}"
    return f"read what it allows at {place} before you use it"
