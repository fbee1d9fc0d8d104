"""Where a text may be cut before it is tokenised so that the token ids in front of the cut stay what they were.

Peers tokenise a passage of 400,000 characters to keep 512 tokens of it. Here only a prefix is tokenised, and its ids are
provably the first ids of the whole text. A cut between the characters x and y is accepted where

1. *normalisation works on each side alone*: x, y and their outer neighbours are plain (see ``PLAIN``), so x and y are grapheme
   clusters of their own, compose with nothing, and x does not become a space that would be stripped from the end;
2. *no added token lies across the cut*: x and y never stand side by side in one;
3. *the model works on each side alone*, which is to say there is a wall between x and y. WordPiece never looks across the end of a
   pre-token. Unigram takes the best path of vocabulary pieces; where no piece holds x and y side by side, every path goes through
   the point between them, and the best path to that point does not depend on what follows it. Every space is such a wall, and so are
   most borders between two Chinese words.

Where y is a separator and a plain character follows it, what comes after the cut can be tokenised alone, too, and its ids appended: a
*joint*. The separator is the pre-token's first character on its own as inside the text.

This holds for tokenizers made of the parts named below. For any other, ``PrefixCutter.of`` gives None, and whole texts are tokenised.
"""

from __future__ import annotations

import functools
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

LOCAL_NORMALIZERS = frozenset(
    [
        "BertNormalizer",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Prepend",
        "StripAccents",
        "Strip",
    ]
)
"""They change a plain character without regard to its plain neighbours (``Strip`` and ``Prepend`` work on the ends only)."""

LOCAL_PRETOKENIZERS = {
    "Unigram": frozenset({"Metaspace", "WhitespaceSplit"}),
    "WordPiece": frozenset({"BertPreTokenizer", "WhitespaceSplit"}),
}
"""Pre-tokenizers, by model, that decide on a split by looking at the two characters beside it."""

SEPARATORS = " \n\t\r\u3000"
UNIGRAM_SPACES = " ▁"
PLAIN = (
    (0x21, 0x7E), (0xC0, 0x2AF), (0x388, 0x482), (0x48A, 0x52F), (0x531, 0x586), (0x5D0, 0x5EA),
    (0x60C, 0x60C), (0x61B, 0x64A), (0x660, 0x66F), (0x671, 0x6D4), (0x6F0, 0x6FC), (0x904, 0x939), (0x964, 0x96F),
    (0x985, 0x9B9), (0xA05, 0xA39), (0xA85, 0xAB9), (0xB05, 0xB39), (0xB85, 0xBB9), (0xC05, 0xC39), (0xC85, 0xCB9),
    (0xD05, 0xD3A), (0xE01, 0xE30), (0xE3F, 0xE46), (0xE4F, 0xE5B), (0xE81, 0xEB0), (0xEC0, 0xEC6), (0x1000, 0x102A),
    (0x10A0, 0x10FF), (0x1200, 0x135A), (0x1780, 0x17B3), (0x1E00, 0x1FBC), (0x2010, 0x2027), (0x3001, 0x3003),
    (0x3008, 0x3011), (0x3014, 0x301B), (0x3041, 0x3096), (0x30A1, 0x30FC), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0xF900, 0xFAD9), (0xFF01, 0xFF5E), (0x20000, 0x3134A),
)  # fmt: skip
"""Ranges of letters, digits and punctuation that begin and end a grapheme cluster beside one another and beside a separator, and that
Unicode's normal forms never join to a character on their left: no combining marks, no conjoining jamo, no emoji, no controls."""

PAIR_BITS = 22
"""The table of the pairs of characters in a vocabulary has 2 to this many places: 4 MB, of which 250,000 pieces take 2 %."""

NEAR = 100
"""Characters searched for a separator first: only there can what follows be tokenised on its own."""

REACH = 2000
"""Characters that are searched for a cut before the guess of its place is given up."""


class PrefixCutter:
    """Finds cuts in texts for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, wall: Callable[[str, str], bool]) -> None:
        self._normalized = functools.lru_cache(maxsize=1 << 16)(functools.partial(_normalize, tokenizer))
        # These would treat the separator at a text's beginning otherwise than inside it.
        self._has_joints = not any(
            part["type"] == "Prepend" or part.get("strip_left") for part in _parts(tokenizer.normalizer, "normalizers")
        ) and not any(token.rstrip for token in tokenizer.get_added_tokens_decoder().values())
        self._wall = functools.lru_cache(maxsize=1 << 16)(wall)
        self._is_plain = functools.lru_cache(maxsize=1 << 16)(_is_plain)
        self._added = {
            pair for token in tokenizer.get_added_tokens_decoder().values() for pair in _neighbours(token.content)
        }

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PrefixCutter | None:
        """A cutter, or None where the tokenizer has a part that the argument above does not cover."""
        kind = type(tokenizer.model).__name__
        pretokenizers = _parts(tokenizer.pre_tokenizer, "pretokenizers")
        covered = (
            kind in LOCAL_PRETOKENIZERS
            and pretokenizers
            and all(part["type"] in LOCAL_PRETOKENIZERS[kind] and part.get("split", True) for part in pretokenizers)
            and all(_is_local(part) for part in _parts(tokenizer.normalizer, "normalizers"))
            and not any(
                token.normalized or token.single_word for token in tokenizer.get_added_tokens_decoder().values()
            )
        )
        if not covered:
            return None
        return cls(tokenizer, UnigramWalls(tokenizer) if kind == "Unigram" else WordWalls(tokenizer))

    def cut(self, text: str, after: int, end: int) -> int | None:
        """A place in (``after``, ``end``] where ``text`` may be cut, or None where the last ``REACH`` characters have none.

        It is before the last separator, if one is near ``end``, else the last place of all.
        """
        last, first = min(end, len(text) - 1), max(after, end - REACH, 0)
        near = (place for place in range(last, max(first, last - NEAR), -1) if text[place] in SEPARATORS)
        for place in itertools.chain(near, range(last, first, -1)):
            if self._may_cut(text, place):
                return place
        return None

    def is_joint(self, text: str, place: int) -> bool:
        """Whether at ``place``, which is a cut, the rest of ``text`` can be tokenised on its own."""
        if not self._has_joints or text[place] not in SEPARATORS or place + 1 == len(text):
            return False
        after = text[place + 1]
        return self._is_plain(after) and not self._normalized(f"a{after}")[1:2].isspace()

    def _may_cut(self, text: str, place: int) -> bool:
        x, y = text[place - 1], text[place]
        outer = text[max(place - 2, 0) : place - 1] + text[place + 1 : place + 2]
        return (
            self._is_plain(x)
            and all(character in SEPARATORS or self._is_plain(character) for character in y + outer)
            and x + y not in self._added
            and self._wall(x, y)
        )


class UnigramWalls:
    """No piece of the vocabulary holds x and y side by side (as normalised); or y is a separator, where a pre-token ends."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # A tenth of a second for 250,000 pieces, spent while a session is being opened.
        background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vocabulary")
        self._pairs = background.submit(_pairs_in_pieces, tokenizer)
        background.shutdown(wait=False)

    def __call__(self, x: str, y: str) -> bool:
        before, after = self._normalized(x), self._normalized(y)
        if not before or not after or before[-1] in UNIGRAM_SPACES:
            return False
        if y in SEPARATORS:
            return after == " "
        return after[0] not in UNIGRAM_SPACES and not self._in_one_piece(before[-1], after[0])

    def _normalized(self, character: str) -> str:
        """What the normaliser makes of a character inside a text; empty where that cannot be told."""
        framed = _normalize(self._tokenizer, f"a{character}a")
        return framed[1:-1] if framed[:1] == framed[-1:] == "a" else ""

    def _in_one_piece(self, left: str, right: str) -> bool:
        places = _places(*np.array([[ord(left)], [ord(right)]], dtype=np.uint32))
        return bool(self._pairs.result()[places[0]])


class WordWalls:
    """A pre-token ends between x and y: splitting them together gives what splitting each gives."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __call__(self, x: str, y: str) -> bool:
        return self._split(x + y) == self._split(x) + self._split(y)

    def _split(self, text: str) -> list[str]:
        pieces = self._tokenizer.pre_tokenizer.pre_tokenize_str(_normalize(self._tokenizer, text))
        return [piece for piece, _ in pieces]


class _Piece(msgspec.Struct, array_like=True, gc=False):
    """A piece of a Unigram model's state; its score, which follows, is left unread."""

    text: str


class _UnigramModel(msgspec.Struct):
    vocab: list[_Piece]


def _pairs_in_pieces(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Whether two characters stand side by side in a vocabulary piece, at the pair's place; true also where two pairs share a place.

    The vocabulary is taken from the model's state: ``get_vocab`` takes three times as long, and all other threads wait for it.
    """
    model = msgspec.json.decode(tokenizer.model.__getstate__(), type=_UnigramModel)
    pieces = "\0".join([piece.text for piece in model.vocab])
    codes = np.frombuffer(pieces.encode("utf-32-le"), dtype=np.uint32)
    held = np.zeros(1 << PAIR_BITS, dtype=np.bool_)
    held[_places(codes[:-1], codes[1:])] = True
    return held


def _places(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A place in the table of pairs for each two characters (multiplicative hashing, Knuth 6.4)."""
    mixed = left * np.uint32(0x9E3779B1) + right * np.uint32(0x85EBCA6B)
    places: NDArray[np.uint32] = mixed >> np.uint32(32 - PAIR_BITS)
    return places


def _is_plain(character: str) -> bool:
    code = ord(character)
    # Ranges are written generously; the category keeps out the marks, controls and unassigned points inside them.
    return any(low <= code <= high for low, high in PLAIN) and unicodedata.category(character)[0] in "LNPS"


def _normalize(tokenizer: Tokenizer, text: str) -> str:
    return text if tokenizer.normalizer is None else str(tokenizer.normalizer.normalize_str(text))


def _neighbours(text: str) -> Iterator[str]:
    return (text[place : place + 2] for place in range(len(text) - 1))


def _parts(component: Any, key: str) -> list[dict[str, Any]]:
    """The settings of a normaliser or pre-tokenizer and, where it is a sequence, of each of its members."""

    def flat(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if part["type"] != "Sequence":
            yield part
        for member in part.get(key, []):
            yield from flat(member)

    return [] if component is None else list(flat(json.loads(component.__getstate__())))


def _is_local(part: dict[str, Any]) -> bool:
    if part["type"] == "Replace":
        # SentencePiece's own, which joins runs of spaces: a separator with a plain character before it begins a run.
        return part["pattern"] in ({"Regex": " {2,}"}, {"String": " "}) and part["content"] in (" ", "▁")
    return part["type"] in LOCAL_NORMALIZERS
