"""What a language model is asked: a text with places for query, document and instruction, in pieces that are tokenised apart.

``{|}`` stands between two pieces. Publishers tokenise the parts of a prompt by themselves and join their ids, and a token never lies
across such a border; where the borders are is part of a model's recipe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.api import ZooError

BORDER = "{|}"
PLACE = re.compile(r"\{(\w+)\}")
QUERY, DOCUMENT, INSTRUCTION = "query", "document", "instruction"
NONE = "none"
"""A template's name for texts that a caller has already put into one."""


@dataclass(frozen=True)
class Piece:
    """Text that is tokenised by itself, with its places."""

    text: str
    places: frozenset[str]

    def filled(self, *, query: str = "", document: str = "", instruction: str = "") -> str:
        """The text with its places filled; what is put in is not searched for places again."""
        texts = {QUERY: query, DOCUMENT: document, INSTRUCTION: instruction}
        return PLACE.sub(lambda found: texts.get(found[1], found[0]), self.text)


@dataclass(frozen=True)
class Template:
    """``before``, then the query's piece, ``between``, the document's piece, and ``after``.

    Query and document may stand in one piece, which is then both ``query`` and ``document``, with nothing between. Only these two are
    ever cut.
    """

    before: Sequence[Piece]
    query: Piece
    between: Sequence[Piece]
    document: Piece
    after: Sequence[Piece]

    @property
    def joined(self) -> bool:
        """Whether query and document are tokenised together."""
        return self.query is self.document

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ZooError for a place that is not known, or if query or document do not stand in it once, in this order."""
        if text == NONE:
            text = "{query}{document}"
        pieces = [Piece(part, frozenset(PLACE.findall(part))) for part in text.split(BORDER) if part]
        found = PLACE.findall(text)
        strange = [name for name in found if name not in (QUERY, DOCUMENT, INSTRUCTION)]
        if strange:
            raise ZooError(
                f"the template has the place {{{strange[0]}}}; known are {{query}}, {{document}}, {{instruction}} and the border {BORDER}"
            )
        if [name for name in found if name != INSTRUCTION] != [QUERY, DOCUMENT]:
            raise ZooError("a template must have {query} once and, behind it, {document} once")
        first = next(n for n, piece in enumerate(pieces) if QUERY in piece.places)
        last = next(n for n, piece in enumerate(pieces) if DOCUMENT in piece.places)
        return cls(pieces[:first], pieces[first], pieces[first + 1 : last], pieces[last], pieces[last + 1 :])
