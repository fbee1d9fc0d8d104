"""A card's published values held against what was measured, if it was measured in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from zoo.evaluation.metrics import PLACES
from zoo.evaluation.rerank import Result
from zoo.registry.card import ModelCard, Reference

NAMES = {
    "retriever": "the first stage",
    "split": "`split`",
    "top_k": "`top_k`",
    "max_length": "`max_length`",
    "query_max_length": "`query_max_length`",
}
"""What messages call the settings of a reference."""
REQUIRED = ("retriever", "top_k", "max_length")
"""Settings without which a value says too little to be compared with."""


def reference_checks(
    card: ModelCard, results: Iterable[Result], settings: Mapping[str, Any], given: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The card's values for what was measured, each with the difference and whether it is inside the tolerance.

    ``settings`` are those of ``identity``, ``given`` the model's options that the user gave. ``not_comparable`` lists how the run differs
    from the reference's; ``reproduced`` is None then.
    """
    changed = [name for name, value in given.items() if str(card.options.get(name)) != value]
    return [
        _check(reference, result, [*_differences(reference, result, settings), *_options(changed)])
        for result in results
        for reference in card.reference
        if reference.dataset == f"{result.collection.dataset}/{result.collection.language}"
        and reference.metric in result.reranked
    ]


def _check(reference: Reference, result: Result, differences: list[str]) -> dict[str, Any]:
    measured = result.reranked[reference.metric]
    return {
        **{name: getattr(reference, name) for name in reference.__struct_fields__},
        "measured": measured,
        "difference": round(measured - reference.value, PLACES),
        "reproduced": None if differences else abs(measured - reference.value) <= reference.tolerance,
        "not_comparable": differences,
    }


def _differences(reference: Reference, result: Result, settings: Mapping[str, Any]) -> Iterator[str]:
    unsaid = [NAMES[name] for name in REQUIRED if getattr(reference, name) is None]
    if unsaid:
        yield f"the card does not state the reference's {', '.join(unsaid).replace('the first', 'first')}"
    used = {
        "split": result.collection.split,
        "retriever": result.collection.retriever,
        "top_k": settings["top k"],
        "max_length": settings["max length"],
        "query_max_length": settings["query max length"],
    }
    for name, value in used.items():
        stated = getattr(reference, name)
        if stated is not None and stated != value:
            yield f"{NAMES[name]} is {value} here, and {stated} for the reference"
    if settings["limit"] is not None:
        yield "the queries are limited (`limit`)"
    if settings["long documents"] != "truncate":
        yield "long passages are scored in chunks"


def _options(changed: Sequence[str]) -> Iterator[str]:
    if changed:
        yield f"options differ from the card's: {', '.join(changed)} (`model_options`)"
