"""A user's options of the device ``sdaa``, parsed at the door."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.api import Option, SessionOptions, ZooError

ENGINES_VARIABLE = "MAX_ENGINE_NUMS"
DEFAULT_ENGINES = 4
TIMEOUT = 600.0
"""Seconds after which a batch that has not come back means that the card is lost. A batch of 128 x 512 tokens takes 0.72 s."""

OPTIONS = (
    Option(name="card_id", help="The card, as in sdaa:N.", flag="--card-id", metavar="N"),
    Option(
        name="pass_path",
        kind="file",
        help="Python file with use_passes(ir_module), run when the engine is compiled.",
        flag="--pass-path",
    ),
    Option(
        name="save_engine",
        help="Keep the compiled engine as FILE too (alone: here, named by model and shape); it can be run as a model file.",
        flag="--save-engine",
        flag_alone=".",
        metavar="FILE",
    ),
    Option(name="generation", choices=("auto", "1", "2"), default="auto", help="Generation of TecoInference to use."),
    Option(
        name="run", choices=("async", "sync"), help="async: a call split over all SPAs; sync: one SPA, call after call."
    ),
    Option(name="spa", kind="integer", help="Run on this one SPA, call after call."),
    Option(name="inputs", kind="names", help="Input names of an engine file that does not tell them, in graph order."),
    Option(name="outputs", kind="names", help="Output names of such a file.  [default: logits]"),
    Option(
        name="timeout",
        kind="number",
        metavar="SECONDS",
        help=f"A batch that has not come back after so long means that the card is lost.  [default: {TIMEOUT:g}]",
    ),
)


@dataclass(frozen=True, kw_only=True)
class SdaaOptions:
    """What the user chose; None means the default."""

    cards: str = ""
    """``""`` (the one the runtime takes by itself), ``all``, or numbers: ``1``, ``0,2``."""
    pass_path: Path | None = None
    save_engine: Path | None = None
    generation: int | None = None
    spa: int | None = None
    """Run on this one SPA, one call after the other; None: on all SPAs of the card, asynchronously."""
    synchronous: bool = False
    inputs: Sequence[str] = ()
    """Input names of an engine file that does not tell them, in graph order."""
    outputs: Sequence[str] = ("logits",)
    timeout: float = TIMEOUT


def parse(options: SessionOptions) -> SdaaOptions:
    """Check every option. Raises ZooError naming the one that is wrong."""
    extra = options.extra
    spa = _number(extra, "spa")
    run = _one_of(extra, "run", ("async", "sync"), "sync" if spa is not None else "async")
    if run == "async" and spa is not None:
        raise ZooError("the device options run=async and spa exclude each other: one SPA runs call after call")
    generation = _one_of(extra, "generation", ("auto", "1", "2"), "auto")
    return SdaaOptions(
        cards=_cards(options.selector, extra.get("card_id", "")),
        pass_path=_file(extra, "pass_path"),
        save_engine=Path(extra["save_engine"]) if extra.get("save_engine") else None,
        generation=None if generation == "auto" else int(generation),
        spa=spa,
        synchronous=run == "sync",
        inputs=_names(extra.get("inputs", "")),
        outputs=_names(extra.get("outputs", "")) or ("logits",),
        timeout=_seconds(extra),
    )


def engines() -> int:
    """How many SPAs, and so engines, a process uses: ``MAX_ENGINE_NUMS``, default 4."""
    text = os.environ.get(ENGINES_VARIABLE, str(DEFAULT_ENGINES))
    if not text.isdecimal() or int(text) < 1:
        raise ZooError(f"the environment variable {ENGINES_VARIABLE} is '{text}'; it takes a number of SPAs, 1 or more")
    return int(text)


def _cards(selector: str, card_id: str) -> str:
    if selector and card_id and selector != card_id:
        raise ZooError(f"--target sdaa:{selector} and --card-id {card_id} name different cards: give one of them")
    chosen = selector or card_id
    if chosen in ("", "all"):
        return chosen
    numbers = chosen.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise ZooError(f"'{chosen}' names no cards: --target takes sdaa, sdaa:1, sdaa:0,1,2,3 or sdaa:all")
    if len(set(map(int, numbers))) < len(numbers):
        raise ZooError(f"'{chosen}' names a card twice")
    return ",".join(str(int(number)) for number in numbers)


def _one_of(extra: Mapping[str, str], name: str, values: Sequence[str], default: str) -> str:
    value = extra.get(name, default)
    if value not in values:
        raise ZooError(f"the device option {name}={value}: it takes {', '.join(values)}")
    return value


def _number(extra: Mapping[str, str], name: str) -> int | None:
    value = extra.get(name)
    if value is not None and not value.isdecimal():
        raise ZooError(f"the device option {name}={value}: it takes a number, counted from 0")
    return None if value is None else int(value)


def _seconds(extra: Mapping[str, str]) -> float:
    value = extra.get("timeout", str(TIMEOUT))
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ZooError(f"the device option timeout={value}: it takes a number of seconds above 0")
    return seconds


def _file(extra: Mapping[str, str], name: str) -> Path | None:
    value = extra.get(name)
    if not value:
        return None
    if not Path(value).is_file():
        raise ZooError(f"the device option {name}={value}: no such file")
    return Path(value)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
