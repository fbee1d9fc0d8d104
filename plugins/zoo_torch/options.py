"""What a user may choose of the devices ``cuda`` and ``torch``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.api import Option, ZooError

OPTIONS = (
    Option(
        name="attention",
        choices=("auto", "varlen", "nested", "padded"),
        default="auto",
        help="How attention is computed over rows of different length; auto takes the first that works, in this order.",
    ),
    Option(
        name="compile",
        choices=("auto", "on", "off"),
        default="auto",
        help="Whether Triton compiles kernels that fuse additions and normalisations; auto does it on a card if Triton is there.",
    ),
    Option(
        name="packed",
        choices=("auto", "off"),
        default="auto",
        help="off runs every model through transformers, padded, to compare with.",
    ),
    Option(
        name="batch_tokens",
        kind="integer",
        minimum=1,
        help="Tokens of a batch at most; by default chosen from the card's memory and the model's size.",
    ),
)
OWN_PROCESS = "yes" if os.name == "posix" else "no"
"""Windows has no way to hand a socket to another process."""

CUDA_OPTIONS = (
    *OPTIONS,
    Option(
        name="process",
        choices=("yes", "no"),
        default=OWN_PROCESS,
        help="yes: a card alone has a process of its own too, as each of several has: threads that tokenise do not hold up the one that "
        "starts its kernels, and a driver that crashes is an error. no: in this process, for debugging, and on Windows.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """The options' values; None leaves the choice to the device."""

    attention: str = "auto"
    compile: str = "auto"
    packed: str = "auto"
    batch_tokens: int | None = None
    own_process: bool = False

    @classmethod
    def of(cls, extra: Mapping[str, str]) -> TorchOptions:
        """From values that have been checked, as ``SessionOptions.extra`` has them."""
        tokens = extra.get("batch_tokens")
        return cls(
            attention=extra.get("attention", "auto"),
            compile=extra.get("compile", "auto"),
            packed=extra.get("packed", "auto"),
            batch_tokens=None if tokens is None else int(tokens),
            own_process=extra.get("process", OWN_PROCESS) == "yes",
        )


def card_numbers(selector: str, present: Sequence[int]) -> list[int]:
    """The cards that ``cuda:SELECTOR`` names: ``""`` the first, ``all``, ``1``, ``0,1``. Raises ZooError for any that is not there."""
    if selector == "":
        return [present[0]]
    if selector == "all":
        return list(present)
    parts = selector.split(",")
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise ZooError(f"'cuda:{selector}' names no cards: use cuda, cuda:1, cuda:0,1 or cuda:all")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise ZooError(f"'cuda:{selector}' names a card twice")
    for number in numbers:
        if number not in present:
            raise ZooError(f"there is no card cuda:{number}; the driver shows {', '.join(map(str, present))}")
    return numbers
