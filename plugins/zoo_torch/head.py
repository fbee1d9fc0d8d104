"""What an architecture's options decide of the score: a classifier's logit, or tokens of a language model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeGuard

from zoo.api import Head, ZooError


@dataclass(frozen=True)
class ScoreTokens:
    """The score of a language model: the logit of the token ``positive``, less that of ``negative`` if there is one."""

    positive: int
    negative: int | None = None

    @property
    def ids(self) -> list[int]:
        return [self.positive] if self.negative is None else [self.positive, self.negative]


def score_tokens(head: Head) -> ScoreTokens | None:
    """The tokens of ``{"kind": "tokens", "positive": 9693, "negative": 2152}``; None for the classifier that the checkpoint has.

    Raises ZooError for a head that is neither.
    """
    kind = head.get("kind", "label")
    positive, negative = head.get("positive"), head.get("negative")
    if kind == "label" and not set(head) - {"kind"}:
        return None
    if kind == "tokens" and not set(head) - {"kind", "positive", "negative"} and _is_id(positive):
        if negative is None:
            return ScoreTokens(positive)
        if _is_id(negative):
            return ScoreTokens(positive, negative)
    raise ZooError(
        f"the head {json.dumps(dict(head))} is not known: its kind is 'label', or 'tokens' with the token id 'positive' "
        "and perhaps 'negative'"
    )


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
