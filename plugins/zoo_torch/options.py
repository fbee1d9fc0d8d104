"""What a user may choose of the devices ``cuda`` and ``torch``, parsed at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import UnknownNameError, ZooError

CHOICES: Mapping[str, Sequence[str]] = {
    "attention": ("auto", "varlen", "nested", "padded"),
    "compile": ("auto", "on", "off"),
    "packed": ("auto", "off"),
}
"""Options with few values; the first is the default.

``attention``: how attention is computed over rows of different length; ``auto`` takes the first that works, in this order.
``compile``: whether torch.compile fuses additions and normalisations; ``auto`` does it on a card where a compiler is found.
``packed``: ``off`` runs every model through transformers, padded, to compare with.
"""

NUMBERS: Sequence[str] = ("batch_tokens",)
"""``batch_tokens``: tokens of a batch at most; by default chosen from the card's memory and the model's size."""


@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """Checked options; None leaves the choice to the device."""

    attention: str = "auto"
    compile: str = "auto"
    packed: str = "auto"
    batch_tokens: int | None = None


def parse(device: str, extra: Mapping[str, str]) -> TorchOptions:
    """Check every option. Raises ZooError naming the one that is wrong."""
    for name in extra:
        if name not in CHOICES and name not in NUMBERS:
            raise UnknownNameError(f"option of the device '{device}' called", name, [*CHOICES, *NUMBERS])
    chosen = {name: extra.get(name, values[0]) for name, values in CHOICES.items()}
    for name, value in chosen.items():
        if value not in CHOICES[name]:
            raise ZooError(f"the device option {name}={value}: it takes {', '.join(CHOICES[name])}")
    return TorchOptions(**chosen, batch_tokens=_number(extra, "batch_tokens"))


def card_numbers(selector: str, present: Sequence[int]) -> list[int]:
    """The cards that ``cuda:SELECTOR`` names: ``""`` the first, ``all``, ``1``, ``0,1``. Raises ZooError for any that is not there."""
    if selector == "":
        return [present[0]]
    if selector == "all":
        return list(present)
    parts = selector.split(",")
    if not all(part.isdecimal() for part in parts):
        raise ZooError(f"'cuda:{selector}' names no cards: use cuda, cuda:1, cuda:0,1 or cuda:all")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise ZooError(f"'cuda:{selector}' names a card twice")
    for number in numbers:
        if number not in present:
            raise ZooError(f"there is no card cuda:{number}; the driver shows {', '.join(map(str, present))}")
    return numbers


def _number(extra: Mapping[str, str], name: str) -> int | None:
    value = extra.get(name)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ZooError(f"the device option {name}={value}: it takes a number of tokens, 1 or more")
    return int(value)
