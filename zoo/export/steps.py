"""The vocabulary of recipes: what each step needs of a model file, what it leaves, and which orders make sense.

A step says what it needs and what it takes away, so a recipe that would do harm is refused before anything is made: onnxsim
rewrites the pattern of nodes that transformer fusion looks for, and after it nothing is fused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.errors import PluginError
from zoo.types import Precision

CHECKPOINT = "a checkpoint"
GRAPH = "a model file"
AS_EXPORTED = "the nodes as they were exported"
FLOAT32 = "float32 weights"
STANDARD = "standard operators alone"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One named step, from a folder with a model file to another. ``space`` is what it writes at most, in float32 weights."""

    summary: str
    needs: frozenset[str]
    gives: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()
    space: float
    space_split: float = 1.1
    """The same past ``SPLIT`` bytes."""


SPLIT = 2_000_000_000
"""torch writes a graph past 2 GiB as a file a tensor, which are then joined into one."""


def _facts(*facts: str) -> frozenset[str]:
    return frozenset(facts)


STEPS = {
    "export": Step(
        summary="trace the model in torch and write it as an ONNX graph with dynamic batch and length",
        needs=_facts(CHECKPOINT),
        gives=_facts(GRAPH, AS_EXPORTED, FLOAT32, STANDARD),
        space=1.1,
        space_split=2.1,
    ),
    "trim": Step(
        summary="behind the last attention, compute the first token only: no other is read by the classifier",
        needs=_facts(GRAPH),
        takes=_facts(AS_EXPORTED),
        space=1.1,
    ),
    "flash": Step(
        summary="join each attention into ONNX Runtime's own operator, without a mask where no pair is padded",
        needs=_facts(GRAPH, FLOAT32, STANDARD),
        takes=_facts(AS_EXPORTED, STANDARD),
        space=1.1,
    ),
    "fuse": Step(
        summary="join the nodes of each transformer layer into ONNX Runtime's own operators",
        needs=_facts(GRAPH, AS_EXPORTED),
        takes=_facts(AS_EXPORTED, STANDARD),
        space=1.1,
    ),
    "simplify": Step(
        summary="fold constants and drop needless nodes (onnxsim); standard operators only",
        needs=_facts(GRAPH),
        takes=_facts(AS_EXPORTED),
        space=1.1,
    ),
    "half": Step(
        summary="weights and arithmetic in float16",
        needs=_facts(GRAPH, FLOAT32),
        takes=_facts(AS_EXPORTED, FLOAT32),
        space=1.1,
    ),
    "quantise": Step(
        summary="weights in int8, one scale a channel; activations quantised as they come",
        needs=_facts(GRAPH, FLOAT32),
        takes=_facts(AS_EXPORTED, FLOAT32),
        space=1.6,
        space_split=1.6,
    ),
    "quantise-unsigned": Step(
        summary="weights in uint8, for CPUs without int8 dot products, where products of signed weights overflow",
        needs=_facts(GRAPH, FLOAT32),
        takes=_facts(AS_EXPORTED, FLOAT32),
        space=1.6,
        space_split=1.6,
    ),
    "compress": Step(
        summary="weights in int8, one scale a channel; arithmetic in float, standard operators only",
        needs=_facts(GRAPH, FLOAT32, STANDARD),
        takes=_facts(AS_EXPORTED, FLOAT32),
        space=1.5,  # a third of that, beside a float32 copy where the weights are stored in float16
        space_split=1.5,
    ),
}
"""Steps by name. A device may name others, which an exporter that knows them has to bring; nothing is assumed of those."""

ONLY_FASTER = frozenset({"trim", "flash"})
"""Steps that no device needs: not done to a file that came with the checkpoint, or its user would wait for a copy."""

CHANGES_PRECISION: Mapping[str, Precision] = {
    "half": "fp16",
    "quantise": "int8",
    "quantise-unsigned": "int8",
    "compress": "int8",
}
"""Steps that lower a file's precision, with what they lower it to."""


def check(recipe: Sequence[str], *, from_file: bool = False) -> None:
    """Raises PluginError where a step needs what is not there, or what an earlier step has taken away."""
    here = {GRAPH, AS_EXPORTED, FLOAT32, STANDARD} if from_file else {CHECKPOINT}
    taken: dict[str, str] = {}
    for name in recipe:
        step = STEPS.get(name)
        if step is None:
            continue
        for fact in sorted(step.needs - here):
            cause = f"'{taken[fact]}' before it has taken that away" if fact in taken else "it is not there"
            raise PluginError(f"the recipe {', '.join(recipe)} cannot work: '{name}' needs {fact}, and {cause}")
        here |= step.gives
        for fact in step.takes & here:
            here.discard(fact)
            taken[fact] = name


def for_file(recipe: Sequence[str]) -> tuple[str, ...]:
    """The steps still to do on a model file the user hands over: all but the export where they change its precision, else none.

    How its graph is written is the user's choice: a file that was simplified or fused elsewhere is run as it is.
    """
    if not any(step in CHANGES_PRECISION for step in recipe):
        return ()
    return tuple(step for step in recipe if step != "export")


def precision_made(recipe: Sequence[str], asked: Precision) -> Precision:
    """The precision of the file itself: a device that lowers it when it compiles shares a float32 file with its other precisions."""
    if any(step not in STEPS for step in recipe):
        return asked
    return next((CHANGES_PRECISION[step] for step in recipe if step in CHANGES_PRECISION), "fp32")


def space_needed(recipe: Sequence[str], weights: int) -> int:
    """Bytes of disk that making it takes at most, for ``weights`` bytes in float32: a step's input lies beside its output."""
    before, most = 0.0, 0.0
    for name in recipe:
        step = STEPS.get(name)
        space = 1.1 if step is None else step.space_split if weights > SPLIT else step.space
        most = max(most, before + space)
        before = 1.0
    return int(most * weights)
