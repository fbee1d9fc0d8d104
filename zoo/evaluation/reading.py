"""What a model could not read of a data set: tokens that its vocabulary does not know, and languages that its card does not name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zoo.registry.card import ModelCard
from zoo.scoring.scorer import MUCH_UNKNOWN

CODES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et eu fa ff "
    "fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku "
    "kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu "
    "rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo "
    "wa wo xh yi yo za zh zu"
)
LANGUAGES = frozenset(CODES.split())
"""ISO 639-1. A part of a data set that is called otherwise says nothing of its language."""
ALL = "multilingual"


@dataclass(frozen=True)
class Reading:
    """Tokens of one collection's pairs, those that are unknown, and the share of the unknown ones for each query that has some."""

    tokens: int = 0
    unknown: int = 0
    queries: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, by_query: Mapping[str, tuple[int, int]], queries: Mapping[str, str]) -> Reading:
        """From counts (unknown, all) by a query's text, and the texts by their ids."""
        unknown, tokens = (sum(counts[side] for counts in by_query.values()) for side in (0, 1))
        shares = {text: part / total for text, (part, total) in by_query.items() if part}
        return cls(tokens, unknown, {query: shares[text] for query, text in queries.items() if text in shares})

    @property
    def share(self) -> float:
        return self.unknown / self.tokens if self.tokens else 0.0

    def warnings(self, label: str) -> list[str]:
        """A sentence if much of the collection, or of some queries' pairs, cannot be read."""
        if self.share > MUCH_UNKNOWN:
            return [
                f"{label}: {self.share:.0%} of this input is unknown to the model's vocabulary; it ranks what it cannot read"
            ]
        bad = {query: share for query, share in self.queries.items() if share > MUCH_UNKNOWN}
        if not bad:
            return []
        worst = max(bad, key=lambda query: bad[query])
        return [
            f"{label}: of {len(bad)} queries more than {MUCH_UNKNOWN:.0%} of the input is unknown to the model's vocabulary "
            f"(most of '{worst}': {bad[worst]:.0%})"
        ]


def language_warnings(card: ModelCard, language: str, label: str) -> list[str]:
    """A sentence if the card names languages and the collection is in another."""
    code = language.replace("_", "-").partition("-")[0].casefold()
    named = [name.casefold() for name in card.languages]
    if not named or ALL in named or code not in LANGUAGES or code in named:
        return []
    return [
        f"{label}: the card of '{card.name}' names the languages {', '.join(card.languages)}, and this is '{language}'"
    ]
