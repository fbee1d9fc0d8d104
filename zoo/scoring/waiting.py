"""Pairs that wait for a device, and whose turn it is: a fair share of the device for each call. No threads and no locks are in here.

The rule is that of fair queueing (Demers, Keshav and Shenker, 1989). Each call is charged the tokens that are computed for it, and whoever
has been charged least comes next. A new call starts with what a call that always waited would have been charged by then if all had got the
same. Its first tokens have a credit, which is paid back after them: a small call is not held up by calls of thousands of pairs, nor do many
small calls hold those up for ever.

Calls that are within their credit do not take turns, which would end all of them late: the one that would end first if they did is computed
whole, then the next (the fair sojourn protocol; Friedman and Henderson, 2003). So calls of one size are computed in the order in which they
came, and none ends later than by turns. Batches are made from a window of the pairs that come next, of pairs of similar length.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from zoo.scoring.handle import Handle
from zoo.types import Encoding, Encodings, Pair

AT_ONCE = 64
"""Pairs of one call that are tokenised before another call's are."""

TOKENS_AHEAD = 1 << 18
"""Tokens of pairs that are tokenised and wait. What is past that waits as text, except for a call that has nothing tokenised."""

WINDOW_BATCHES = 16
"""Batches that are made from one window, and the credit of a new call. Half as many pad 2 to 8 % more (lengths of 8 to 512 tokens)."""

MOST = 2048
"""Pairs of a window, however short they are."""

LEARNING = 0.1
"""Weight of the newest texts in what a character is expected to cost."""


@dataclass(frozen=True, eq=False)
class Item:
    """One tokenised pair. ``group`` names what its row shares with others, by the leading tokens themselves; None if nothing is shared."""

    handle: Handle
    index: int
    number: int
    row: Encoding
    group: tuple[int, ...] | None

    @classmethod
    def all_of(cls, handle: Handle, start: int, encodings: Encodings, numbers: Iterator[int]) -> list[Item]:
        """The pairs of ``handle`` from ``start`` on."""
        return [
            cls(handle, start + place, next(numbers), row, _group(handle, start, encodings, place))
            for place, row in enumerate(encodings.rows)
        ]


@dataclass(eq=False)
class _Turn:
    """The waiting pairs of one call. ``charged`` is in tokens, ``expected`` the tokens a pair that is not tokenised is thought to have."""

    handle: Handle
    charged: float
    credit: int
    expected: float
    texts_from: int = 0
    ready: deque[Item] = field(default_factory=deque)
    """Tokenised and not in the plan."""
    tokens: int = 0
    """Of pairs that are tokenised and not begun."""
    planned: int = 0
    unfinished: int = field(init=False)
    """Pairs that are not begun, whatever state they are in."""

    def __post_init__(self) -> None:
        self.unfinished = len(self.handle.pairs)
        self._credit_ends = self.charged + self.credit
        self._total = self.expected * self.unfinished

    def rank(self, tokens: int = 0) -> float:
        """The lowest of all comes next; ``tokens`` are those of its own pairs that come before."""
        charged = self.charged + tokens
        if charged >= self._credit_ends:
            return charged
        return self._credit_ends - 2 * self.credit + min(self._total, self.credit)

    def add(self, items: Sequence[Item]) -> int:
        """Take in tokenised pairs; their tokens."""
        self.ready.extend(items)
        tokens = sum(item.row.length for item in items)
        self.tokens += tokens
        self._total += tokens - self.expected * len(items)
        return tokens

    @property
    def texts(self) -> int:
        """Pairs that are not tokenised."""
        return len(self.handle.pairs) - self.texts_from


@dataclass(frozen=True, eq=False)
class _Planned:
    """A batch to come. ``turn`` is the rank and number of the pair that it was made for."""

    turn: tuple[float, int]
    items: list[Item]


class WaitingPairs:
    """What waits, in the order in which it will be computed.

    ``longest`` is the most tokens a pair has, if that is known, and ``batch_tokens`` about as many as a batch has.
    """

    def __init__(self, longest: int | None = None, batch_tokens: int = 4096) -> None:
        self._longest, self._window = longest, WINDOW_BATCHES * batch_tokens
        self._turns: dict[Handle, _Turn] = {}
        self._texts: dict[Handle, _Turn] = {}
        """Those of them that have pairs left to tokenise."""
        self._tokens = 0
        """Of pairs that are tokenised and not begun."""
        self._expected = 0.0
        """Of pairs that are not tokenised."""
        self._plan: deque[_Planned] = deque()
        self._newest: tuple[float, int] | None = None
        """The earliest turn of pairs that came after the plan was made."""
        self._clock = 0.0
        """What a call that always waited would have been charged."""
        self._tokens_a_character = 0.4
        self._numbers = itertools.count()

    @property
    def pairs(self) -> int:
        """Pairs that are not begun."""
        return sum(turn.unfinished for turn in self._turns.values())

    @property
    def tokens(self) -> int:
        """Their tokens; of pairs that are not tokenised, the expected ones."""
        return self._tokens + round(self._expected)

    @property
    def any_ready(self) -> bool:
        """Whether a batch can be made."""
        return bool(self._plan) or any(turn.ready for turn in self._turns.values())

    def expected_tokens(self, pairs: Sequence[Pair]) -> int:
        """What pairs are thought to cost, by their characters and what characters have cost so far."""
        longest = float("inf") if self._longest is None else self._longest
        return round(
            sum(min((len(pair.query) + len(pair.passage)) * self._tokens_a_character, longest) for pair in pairs)
        )

    def add(self, handle: Handle) -> None:
        """Take in the pairs of a call, as text."""
        expected = self.expected_tokens(handle.pairs) / len(handle.pairs)
        self._turns[handle] = self._texts[handle] = _Turn(handle, self._clock, self._window, expected)
        self._expected += expected * len(handle.pairs)

    def next_texts(self) -> tuple[Handle, int, int] | None:
        """Whose pairs to tokenise next, and which: from, to. None if enough are tokenised."""
        enough = self._tokens >= TOKENS_AHEAD
        turns = [turn for turn in self._texts.values() if not (enough and turn.tokens)]
        if not turns:
            return None
        turn = min(turns, key=lambda turn: turn.rank(turn.tokens))  # the first of equal ones has waited longest
        start = turn.texts_from
        turn.texts_from = min(start + AT_ONCE, len(turn.handle.pairs))
        self._expected -= (turn.texts_from - start) * turn.expected
        if not turn.texts:
            del self._texts[turn.handle]
        return turn.handle, start, turn.texts_from

    def add_tokenised(self, handle: Handle, start: int, encodings: Encodings) -> None:
        """Take in pairs that ``next_texts`` gave. Does nothing for a call that has been forgotten."""
        turn = self._turns.get(handle)
        if turn is None:
            return
        items = Item.all_of(handle, start, encodings, self._numbers)
        first, before = not turn.ready, turn.tokens
        self._tokens += turn.add(items)
        if first and items:
            key = (turn.rank(before), items[0].number)
            self._newest = key if self._newest is None else min(self._newest, key)
        self._learn(items)

    def next_batch(self, divide: Callable[[list[Item]], list[list[int]]]) -> list[Item]:
        """The pairs of the next batch, which count as begun; empty if none is ready. ``divide`` splits pairs into batches by length."""
        if self._plan and self._newest is not None and self._newest < self._plan[0].turn:
            self._unplan()
        if not self._plan:
            self._make_plan(divide)
        if not self._plan:
            return []
        planned = self._plan.popleft()
        self._clock += sum(item.row.length for item in planned.items) / len(self._turns)
        for item in planned.items:
            turn = self._turns[item.handle]
            turn.charged += item.row.length
            turn.tokens -= item.row.length
            self._tokens -= item.row.length
            turn.planned -= 1
            turn.unfinished -= 1
            if not turn.unfinished:
                del self._turns[item.handle]
        return planned.items

    def candidates(self) -> list[Item]:
        """The window: the pairs that come next."""
        return [item for _, item in self._in_turn()]

    def forget(self, handle: Handle) -> None:
        """Drop the pairs of a call that are not begun."""
        turn = self._turns.pop(handle, None)
        if turn is not None:
            self._texts.pop(handle, None)
            self._tokens -= turn.tokens
            self._expected -= turn.texts * turn.expected
            left = (_Planned(each.turn, [i for i in each.items if i.handle is not handle]) for each in self._plan)
            self._plan = deque(each for each in left if each.items)

    def clear(self) -> None:
        """Drop everything."""
        for handle in list(self._turns):
            self.forget(handle)

    def _in_turn(self) -> list[tuple[tuple[float, int], Item]]:
        heap = [(turn.rank(), turn.ready[0].number, 0, 0, turn) for turn in self._turns.values() if turn.ready]
        heapq.heapify(heap)
        chosen: list[tuple[tuple[float, int], Item]] = []
        tokens = 0
        while heap and tokens < self._window and len(chosen) < MOST:
            rank, number, place, before, turn = heapq.heappop(heap)
            item = turn.ready[place]
            chosen.append(((rank, number), item))
            tokens += item.row.length
            if place + 1 < len(turn.ready):
                before += item.row.length
                heapq.heappush(heap, (turn.rank(before), turn.ready[place + 1].number, place + 1, before, turn))
        return chosen

    def _make_plan(self, divide: Callable[[list[Item]], list[list[int]]]) -> None:
        chosen = self._in_turn()
        if not chosen:
            return
        batches = divide([item for _, item in chosen])
        for _, item in chosen:
            turn = self._turns[item.handle]
            turn.ready.popleft()
            turn.planned += 1
        planned = sorted(batches, key=min)
        self._plan = deque(_Planned(chosen[min(batch)][0], [chosen[place][1] for place in batch]) for batch in planned)
        self._newest = None

    def _unplan(self) -> None:
        """Give planned pairs back to their calls, in front of those that wait."""
        items = sorted((item for each in self._plan for item in each.items), key=lambda item: -item.number)
        self._plan.clear()
        for item in items:
            turn = self._turns[item.handle]
            turn.ready.appendleft(item)
            turn.planned -= 1

    def _learn(self, items: Sequence[Item]) -> None:
        whole = [item for item in items if not (item.row.passage_truncated or item.row.query_truncated)]
        characters = sum(sum(map(len, item.handle.pairs[item.index])) for item in whole)
        if characters:
            measured = sum(item.row.length for item in whole) / characters
            self._tokens_a_character += LEARNING * (measured - self._tokens_a_character)


def encodings_of(items: Sequence[Item], form: Encodings) -> Encodings:
    """``items`` as encodings padded as ``form`` is. Rows whose leading tokens are the same are one group, whoever asked for them."""
    groups: list[int] | None = None
    if form.groups is not None:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(item.group for item in items))}
        groups = [numbers[item.group] for item in items]
    shared = None if form.shared is None else [len(item.group or ()) for item in items]
    return Encodings([item.row for item in items], form.padding, form.padding_side, groups, shared)


def _group(handle: Handle, start: int, encodings: Encodings, place: int) -> tuple[int, ...] | None:
    """The group of a row, named so that it means the same beside rows of other calls: by the tokens shared, if it says how many."""
    if encodings.groups is None:
        return None
    if encodings.shared is None:
        return id(handle), start, encodings.groups[place]
    return tuple(next(iter(encodings.rows[place].features.values()))[: encodings.shared[place]])
