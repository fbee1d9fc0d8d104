"""The tokens that many prompts begin with are computed once: their keys and values are the past of the rows that go on after them.

The graph takes ``past_keys_N`` and ``past_values_N``, (1, key heads, P, size) with P >= 0, for each layer N, and gives ``new_keys_N`` and
``new_values_N`` of its own tokens. Because attention is causal, the first tokens of a past are the past of a shorter prefix: the longest
known past is taken, and is cut or continued.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from zoo.api import BatchInfo, Session, Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PAST, NEW = "past_", "new_"
LEAST = 16
"""A shorter prefix is not computed by itself: another call of the device costs more than that saves."""
MEMORY = 256 << 20
"""Bytes of pasts that are kept: ten prefixes of 100 tokens of a model of 0.6 B parameters."""


@dataclass(frozen=True)
class PastShape:
    """Heads of keys and values, and the size of each."""

    heads: int
    size: int


class SharedPrefixes:
    """Runs batches with the prefixes of their rows as pasts, and keeps recent pasts. Several threads may use it."""

    def __init__(self, shape: PastShape) -> None:
        self._shape = shape
        self._known: OrderedDict[tuple[int, ...], dict[str, Array]] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def submit(self, session: Session, inputs: Tensors, batch: BatchInfo) -> Future[Tensors]:
        """The logits of a batch whose rows share ``batch.shared`` leading tokens, by their group. Waits for pasts that are not known."""
        import numpy as np

        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        lengths = mask.sum(axis=1)
        shared = batch.shared or (0,) * batch.rows
        parts: dict[tuple[int, ...], list[int]] = {}
        for row in range(batch.rows):
            parts.setdefault(tuple(ids[row, : shared[row]].tolist()), []).append(row)
        futures: list[tuple[list[int], Future[Tensors]]] = []
        for prefix, rows in parts.items():
            start, end = len(prefix), int(lengths[rows].max())
            own = {
                "input_ids": np.ascontiguousarray(ids[rows, start:end]),
                "attention_mask": np.ascontiguousarray(mask[rows, start:end]),
                **self.past(session, prefix),
            }
            futures.append((rows, session.submit(own, ["logits"])))
        return _together(futures, len(ids))

    def past(self, session: Session, prefix: tuple[int, ...]) -> Mapping[str, Array]:
        """The past of ``prefix``, from the longest known one that it begins with."""
        import numpy as np

        names = [name for name in session.input_names if name.startswith(PAST)]
        with self._lock:
            if prefix in self._known:
                self._known.move_to_end(prefix)
                return self._known[prefix]
            nearest, common = self._nearest(prefix)
        if not prefix:
            return {name: np.zeros((1, self._shape.heads, 0, self._shape.size), np.float32) for name in names}
        begun = {name: nearest[name][:, :, :common] for name in names} if nearest else self.past(session, ())
        if common < len(prefix):
            rest = np.array([prefix[common:]], dtype=np.int64)
            asked = {"input_ids": rest, "attention_mask": np.ones_like(rest), **_contiguous(begun)}
            made = session.submit(asked, [NEW + name.removeprefix(PAST) for name in names]).result()
            begun = {name: np.concatenate([begun[name], made[NEW + name.removeprefix(PAST)]], axis=2) for name in names}
        return self._kept(prefix, _contiguous(begun))

    def _nearest(self, prefix: tuple[int, ...]) -> tuple[dict[str, Array] | None, int]:
        """The known past with the most leading tokens in common with ``prefix``, and how many; the lock is held."""
        found, most = None, LEAST - 1
        for known, past in self._known.items():
            common = common_length(known, prefix)
            if common > most:
                found, most = past, common
        return found, most if found else 0

    def _kept(self, prefix: tuple[int, ...], past: dict[str, Array]) -> dict[str, Array]:
        with self._lock:
            if prefix not in self._known:
                self._known[prefix] = past
                self._held += _bytes(past)
            while self._held > MEMORY and len(self._known) > 1:
                _, gone = self._known.popitem(last=False)
                self._held -= _bytes(gone)
        return past


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Leading elements that two sequences have in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # slices are compared at the speed of C
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _contiguous(arrays: Mapping[str, Array]) -> dict[str, Array]:
    import numpy as np

    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _bytes(past: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in past.values())


def _together(futures: Sequence[tuple[list[int], Future[Tensors]]], rows: int) -> Future[Tensors]:
    """One future of the parts' logits, in the rows' order; rows that only fill a shape get the logit of the last that is a pair."""
    import numpy as np

    whole: Future[Tensors] = Future()
    logits = np.empty((rows, 1), np.float32)
    waiting, lock = [len(futures)], Lock()

    def landed(places: list[int], part: Future[Tensors]) -> None:
        with suppress(InvalidStateError):  # the whole was cancelled, or another part has failed
            if part.cancelled():
                whole.cancel()
                return
            error = part.exception()
            if error is not None:
                whole.set_exception(error)
                return
            logits[places] = part.result()["logits"].astype(np.float32)
            with lock:
                waiting[0] -= 1
                done = not waiting[0]
            if done:
                real = sum(len(places) for places, _ in futures)
                logits[real:] = logits[real - 1]
                whole.set_result({"logits": logits})

    for places, part in futures:
        part.add_done_callback(lambda done, places=places: landed(places, done))  # type: ignore[misc]
    return whole
