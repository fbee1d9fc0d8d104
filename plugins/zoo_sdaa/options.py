"""What a user may say of the device ``sdaa``: the options it declares, and their values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.api import Option, SessionOptions, ZooError

ENGINES_VARIABLE = "MAX_ENGINE_NUMS"
DEFAULT_ENGINES = 4
TIMEOUT = 600.0
"""Seconds without an answer after which a card counts as lost. A batch of 128 x 512 tokens takes 0.72 s."""

HERE = Path(__file__).resolve().parent
PASSES: Mapping[str, Path | None] = {
    "default": None,
    "mixed": HERE / "passes_mixed.py",
    "unconverted": HERE / "passes_unconverted.py",
}
"""Pass modules that come with the plugin, by the name that ``pass_path`` takes."""

OPTIONS = (
    Option(name="card_id", help="The card, as in sdaa:N.", flag="--card-id", metavar="N"),
    Option(
        name="pass_path",
        kind="file",
        choices=tuple(PASSES),
        compared=True,
        help="Python file with use_passes(ir_module), run when the engine is compiled; or one of zoo's own: mixed keeps softmax and "
        "LayerNorm in float32, unconverted takes a float16 ONNX file as it is.",
        flag="--pass-path",
    ),
    Option(
        name="save_engine",
        help="Keep the compiled engine as FILE too (alone: here, named by model and shape); it can be run as a model file.",
        flag="--save-engine",
        flag_alone=".",
        metavar="FILE",
    ),
    Option(
        name="generation",
        choices=("auto", "1", "2"),
        default="auto",
        help="Generation of TecoInference to use. auto: 2 if it is installed and TECO_INFER_TVM_RUN does not say otherwise.",
    ),
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
        help=f"A card that has not answered for so long counts as lost.  [default: {TIMEOUT:g}]",
    ),
    Option(
        name="process",
        choices=("yes", "no"),
        default="yes",
        help="yes: each card has a process of its own, which may crash or hang alone. no: one card, in this process, for debugging; "
        "there is no timeout, and what the runtime prints mixes with the results.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class SdaaOptions:
    """What the user chose; None means the default."""

    cards: str = ""
    """``""`` (the first healthy one), ``all``, or numbers: ``1``, ``0,2``."""
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
    own_process: bool = True


def parse(options: SessionOptions) -> SdaaOptions:
    """The values of the options, which were checked one by one. Raises ZooError for what does not go together."""
    extra = options.extra
    spa = int(extra["spa"]) if "spa" in extra else None
    run = extra.get("run", "async" if spa is None else "sync")
    if run == "async" and spa is not None:
        raise ZooError("the device options run=async and spa exclude each other: one SPA runs call after call")
    generation = extra.get("generation", "auto")
    timeout = float(extra.get("timeout", TIMEOUT))
    if timeout <= 0:
        raise ZooError(f"the device option timeout={extra['timeout']}: it takes a number of seconds above 0")
    passes = extra.get("pass_path", "default")
    return SdaaOptions(
        cards=_cards(options.selector, extra.get("card_id", "")),
        pass_path=PASSES[passes] if passes in PASSES else Path(passes),
        save_engine=Path(extra["save_engine"]) if extra.get("save_engine") else None,
        generation=None if generation == "auto" else int(generation),
        spa=spa,
        synchronous=run == "sync",
        inputs=_names(extra.get("inputs", "")),
        outputs=_names(extra.get("outputs", "")) or ("logits",),
        timeout=timeout,
        own_process=extra.get("process", "yes") == "yes",
    )


def engines() -> int:
    """How many SPAs, and so engines, this process uses: ``MAX_ENGINE_NUMS``, default 4."""
    text = os.environ.get(ENGINES_VARIABLE, str(DEFAULT_ENGINES))
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise ZooError(f"the environment variable {ENGINES_VARIABLE} is '{text}'; it takes a number of SPAs, 1 or more")
    return int(text)


def _cards(selector: str, card_id: str) -> str:
    if selector and card_id and selector != card_id:
        raise ZooError(f"`device` sdaa:{selector} and the device option card_id={card_id} differ: give one of them")
    chosen = selector or card_id
    if chosen in ("", "all"):
        return chosen
    numbers = chosen.split(",")
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ZooError(f"'{chosen}' does not name cards: `device` takes sdaa, sdaa:1, sdaa:0,1,2,3 or sdaa:all")
    if len(set(map(int, numbers))) < len(numbers):
        raise ZooError(f"'{chosen}' names a card twice")
    return ",".join(str(int(number)) for number in numbers)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
