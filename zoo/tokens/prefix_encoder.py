"""The first token ids of texts: cut where that is exact, tokenised in batches, and remembered."""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import NamedTuple

from tokenizers import Tokenizer

from zoo.tokens.prefix import PrefixCutter

CHARACTERS_A_TOKEN = {1: 4.0, 2: 4.0, 3: 1.5, 4: 1.5}
"""What the cut is first guessed from, by UTF-8 bytes a character (Latin; Greek, Cyrillic, Arabic; Asian scripts); then it is observed."""

STEP = 1.05
"""Guesses are of few different lengths, a twentieth apart, so that a passage that comes again is cut where it was cut before."""

MARGIN = 1.15
"""What is still missing after a first guess is guessed so much longer, so that it rarely takes a third."""

AT_ONCE = 1_000_000
"""Characters given to the tokenizer at once: it takes some 100 bytes for each token until all of them are done."""

SHORTEST_SAMPLE = 64
"""Tokens a text must have for the characters a token to be learnt from it."""

MEMORY = 4_000_000
"""Characters and tokens that are remembered: about 1,300 passages of 512 tokens, 12 MB."""


class Piece(NamedTuple):
    """A stretch of a text that is to be tokenised, and the ids of what lies before it."""

    text: str
    start: int
    end: int
    before: list[int]

    @property
    def string(self) -> str:
        return self.text[self.start : self.end]


class PrefixEncoder:
    """Token ids without special tokens. ``cutter`` None tokenises every text whole."""

    def __init__(self, tokenizer: Tokenizer, cutter: PrefixCutter | None) -> None:
        # The fast form leaves out the offsets, which nobody asks for here; it came with tokenizers 0.20.
        self._encode_batch = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
        self._cutter = cutter
        self._density = dict(CHARACTERS_A_TOKEN)
        self._recent = RecentIds(MEMORY)

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, whole: bool = False) -> PrefixEncoder:
        """An encoder that cuts texts where that is exact for this tokenizer; with ``whole`` it never does."""
        return cls(tokenizer, None if whole else PrefixCutter.of(tokenizer))

    def encode(self, texts: Sequence[str], wanted: int) -> list[list[int]]:
        """The ids of each text: all of them, or at least the first ``wanted``. What repeats is tokenised once."""
        done: dict[str, list[int]] = {}
        pieces = [
            # A text this short is whole whatever is guessed; guessing would be half its cost.
            Piece(text, 0, len(text), [])
            if len(text) <= wanted
            else self._piece(text, 0, self._guess(text, wanted), [])
            for text in dict.fromkeys(texts)
        ]
        while pieces:
            ids = self._ids(list(dict.fromkeys(piece.string for piece in pieces)), wanted)
            missing = []
            for piece in pieces:
                found = piece.before + ids[piece.string]
                if len(found) >= wanted or piece.end == len(piece.text):
                    done[piece.text] = found
                else:
                    missing.append(self._next(piece, found, wanted))
            pieces = missing
        return [done[text] for text in texts]

    def _guess(self, text: str, wanted: int) -> int:
        return math.ceil(wanted * STEP ** math.ceil(math.log(self._density[_bytes_a_character(text)], STEP)))

    def _next(self, piece: Piece, found: list[int], wanted: int) -> Piece:
        """What follows ``piece``, with which too few ids are ``found``; where the two do not join, both from the start."""
        rate = piece.end / max(len(found), 1)
        end = piece.end + math.ceil((wanted - len(found)) * rate * MARGIN)
        assert self._cutter is not None  # without it a piece is a whole text, and that is never too little
        joined = self._cutter.is_joint(piece.text, piece.end)
        return self._piece(piece.text, piece.end if joined else 0, end, found if joined else [], after=piece.end)

    def _piece(self, text: str, start: int, end: int, before: list[int], after: int = 0) -> Piece:
        """``text`` from ``start`` to a cut past ``after`` and, where there is one, near ``end``; to its end where there is none."""
        while self._cutter is not None and end < len(text):
            place = self._cutter.cut(text, after, end)
            if place is not None:
                return Piece(text, start, place, before)
            after, end = max(after, end), 2 * max(after, end)
        return Piece(text, start, len(text), before)

    def _ids(self, texts: list[str], wanted: int) -> dict[str, list[int]]:
        # Where texts are not cut, the caller may want their ends. Elsewhere a text that has no cut is not kept whole either.
        kept = None if self._cutter is None else wanted
        found = {text: ids[:kept] for text in texts if (ids := self._recent.get(text)) is not None}
        for part in _parts([text for text in texts if text not in found], AT_ONCE):
            for text, encoding in zip(part, self._encode_batch(part, add_special_tokens=False), strict=True):
                ids = encoding.ids
                found[text] = ids[:kept]
                self._recent.put(text, ids)
                if len(ids) >= SHORTEST_SAMPLE:
                    width = _bytes_a_character(text)
                    self._density[width] += (len(text) / len(ids) - self._density[width]) / 16
        return found


class RecentIds:
    """The ids of texts met not long ago, at most ``capacity`` characters and ids of them. Several threads may use it."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._held = capacity, 0
        self._ids: OrderedDict[str, array[int]] = OrderedDict()
        self._lock = Lock()

    def get(self, text: str) -> list[int] | None:
        with self._lock:
            ids = self._ids.get(text)
            if ids is None:
                return None
            self._ids.move_to_end(text)
            return ids.tolist()

    def put(self, text: str, ids: list[int]) -> None:
        with self._lock:
            if text in self._ids:
                return
            self._ids[text] = array("I", ids)
            self._held += len(text) + len(ids)
            while self._held > self._capacity:
                oldest, gone = self._ids.popitem(last=False)
                self._held -= len(oldest) + len(gone)


def _parts(texts: Sequence[str], characters: int) -> Iterator[list[str]]:
    """``texts`` in order, in lists of so many characters at most; a longer text is alone."""
    part: list[str] = []
    held = 0
    for text in texts:
        if part and held + len(text) > characters:
            yield part
            part, held = [], 0
        part.append(text)
        held += len(text)
    if part:
        yield part


def _bytes_a_character(text: str) -> int:
    sample = text[:256]
    return min(max(round(len(sample.encode("utf-8", "surrogatepass")) / max(len(sample), 1)), 1), 4)
