"""Architectures with one fault each, and the test of ``ArchitectureContract`` that is meant to find it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from zoo.api import (
    Architecture,
    BatchInfo,
    Encoding,
    Encodings,
    InputError,
    Option,
    Pair,
    Requirements,
    Scores,
    Tensors,
    ZooError,
    hookimpl,
)
from zoo.testing.architecture import PAIRS
from zoo.testing.contract import ArchitectureContract

BATCHED = (
    "test_scores_are_in_the_order_of_the_pairs",
    "test_scores_do_not_depend_on_the_batch",
    "test_scores_do_not_depend_on_padding",
    "test_rows_that_only_fill_a_fixed_shape_do_not_count",
)


class Good(Architecture):
    """Reads characters."""

    meant = ""
    also: tuple[str, ...] = ()
    requires = Requirements(files=("config.json",))
    reference: ClassVar[Mapping[Pair, float] | None] = None

    def __init__(self, card: Any, checkpoint: Any, **settings: Any) -> None:
        super().__init__(card, checkpoint, **settings)
        self.read()

    def read(self) -> None:
        path = self.checkpoint.folder / "config.json"
        if not path.is_file():
            raise InputError(path, None, "is missing")

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return Encodings([self.encoding(pair) for pair in pairs], {"input_ids": 1})

    def encoding(self, pair: Pair) -> Encoding:
        query = self.ids(pair.query)[: self.max_length - 3]
        room = self.max_length - 3 - len(query)
        passage = self.ids(pair.passage)
        ids = [2, *query, 3, *passage[:room], 3]
        return Encoding({"input_ids": ids}, len(passage) > room, len(pair.query) > len(query))

    def ids(self, text: str) -> list[int]:
        return [5 + ord(character) % 89 for character in text]

    @hookimpl
    def postprocess(self, outputs: Tensors, inputs: Tensors, batch: BatchInfo) -> Scores:
        return self.scores(outputs["logits"][:, 0], inputs, batch)

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        return logits


class NotAnArchitecture:
    meant = "test_it_is_an_architecture"
    also: tuple[str, ...] = ()
    reference = None
    requires, options = Good.requires, ()
    optional_features = Good.optional_features
    supplies = Good.supplies
    supplied_inputs = ()
    __init__ = Architecture.__init__  # type: ignore[assignment]
    preprocess, postprocess = Good.preprocess, Good.postprocess
    encoding, ids, scores, close = Good.encoding, Good.ids, Good.scores, Good.close

    def __new__(cls, card: Any, checkpoint: Any, **settings: Any) -> Any:
        if not (checkpoint.folder / "config.json").is_file():
            raise ZooError("config.json is missing")
        return super().__new__(cls)


class DropsEmptyPassages(Good):
    meant = "test_it_gives_one_encoding_a_pair"
    also = ("test_empty_and_odd_texts_have_a_score",)

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return Encodings([self.encoding(pair) for pair in pairs if pair.passage], {"input_ids": 1})


class FloatIdsOfSomeTexts(Good):
    meant = "test_it_gives_one_encoding_a_pair"
    also = ("test_empty_and_odd_texts_have_a_score",)

    def ids(self, text: str) -> list[Any]:
        return [value / 2 for value in super().ids(text)] if "🐼" in text else super().ids(text)


class FailsOnEmptyQueries(DropsEmptyPassages):
    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        if any(not pair.query for pair in pairs):
            raise IndexError("list index out of range")
        return super().preprocess(pairs)


class SortsByLength(Good):
    meant = "test_its_encodings_are_those_of_their_pairs_in_order"
    also = BATCHED

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        found = super().preprocess(pairs)
        return replace(found, rows=sorted(found.rows, key=lambda row: row.length))


class RemembersTheLastPair(SortsByLength):
    also = (
        *BATCHED, "test_it_works_in_another_thread_and_in_several", "test_the_passage_and_the_query_both_count",
        "test_two_may_be_open_at_once",
    )  # fmt: skip
    last = 0

    def encoding(self, pair: Pair) -> Encoding:
        row = super().encoding(pair)
        found = Encoding({"input_ids": [self.last, *row.features["input_ids"][1:]]}, row.passage_truncated)
        self.last = row.length
        return found


class NotFiniteForShortPairs(Good):
    meant = "test_it_gives_one_finite_score_a_pair"
    also = (
        *BATCHED, "test_empty_and_odd_texts_have_a_score", "test_outputs_and_inputs_stay_as_they_were",
        "test_the_passage_and_the_query_both_count",
    )  # fmt: skip

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        return np.where(inputs["attention_mask"].sum(1) < 6, np.inf, logits)


class NotFiniteForEmptyTexts(Good):
    meant = "test_empty_and_odd_texts_have_a_score"

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        return np.where(inputs["attention_mask"].sum(1) < 4, np.nan, logits)


class DependsOnTheBatch(Good):
    meant = "test_scores_do_not_depend_on_the_batch"
    also = BATCHED

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        return logits - logits.mean()


class DependsOnThePlaceInTheBatch(Good):
    meant = "test_scores_do_not_depend_on_the_batch"
    also = BATCHED

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        return logits + np.arange(len(logits), dtype=np.float32)


class CountsPadding(Good):
    meant = "test_scores_do_not_depend_on_padding"
    also = BATCHED

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        return logits * np.float32(inputs["input_ids"].shape[1])


class CountsRowsThatFill(Good):
    meant = "test_rows_that_only_fill_a_fixed_shape_do_not_count"

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        return logits + np.float32(len(logits) - batch.rows)


class DoesNotTruncate(Good):
    meant = "test_it_truncates_to_its_length"
    also = (
        "test_rows_that_only_fill_a_fixed_shape_do_not_count",
        "test_a_long_query_does_not_pass_the_limit",  # the passage follows it
    )

    def encoding(self, pair: Pair) -> Encoding:
        ids = [2, *self.ids(pair.query)[: self.max_length - 3], 3, *self.ids(pair.passage)]
        return Encoding({"input_ids": ids})


class HidesTheCut(Good):
    meant = "test_it_truncates_to_its_length"

    def encoding(self, pair: Pair) -> Encoding:
        return Encoding(super().encoding(pair).features)


class LongQueryPassesTheLimit(Good):
    meant = "test_a_long_query_does_not_pass_the_limit"

    def encoding(self, pair: Pair) -> Encoding:
        query, passage = self.ids(pair.query), self.ids(pair.passage)
        room = max(self.max_length - 3 - len(query), 0)
        return Encoding({"input_ids": [2, *query, 3, *passage[:room], 3]}, len(passage) > room)


class IgnoresTheQuery(Good):
    meant = "test_the_passage_and_the_query_both_count"

    def encoding(self, pair: Pair) -> Encoding:
        return super().encoding(Pair("q" * min(len(pair.query), 1), pair.passage))


class IgnoresThePassage(Good):
    meant = "test_the_passage_and_the_query_both_count"

    def encoding(self, pair: Pair) -> Encoding:
        row = super().encoding(Pair(pair.query, ""))
        return Encoding(row.features, len(pair.passage) > 80, row.query_truncated)


class OneCallAtATime(Good):
    meant = "test_it_works_in_another_thread_and_in_several"

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.busy = threading.Lock()

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        if not self.busy.acquire(blocking=False):
            raise RuntimeError("already borrowed")
        try:
            time.sleep(0.01)
            return super().preprocess(pairs)
        finally:
            self.busy.release()


class ChangesOutputs(Good):
    meant = "test_outputs_and_inputs_stay_as_they_were"

    def scores(self, logits: Any, inputs: Tensors, batch: BatchInfo) -> Any:
        logits *= 2
        return logits


class GroupsThatDoNotShare(Good):
    meant = "test_groups_share_the_leading_tokens_they_claim"

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return replace(super().preprocess(pairs), groups=[0] * len(pairs), shared=[2] * len(pairs))


class AnotherScale(Good):
    meant = "test_scores_are_those_of_the_reference"
    reference = {PAIRS[0]: 123.0}


class OptionWithoutHelp(Good):
    meant = "test_its_options_have_help_and_defaults_that_they_take"
    options = (Option(name="weight", help=""),)


class DefaultIsNotTaken(OptionWithoutHelp):
    options = (Option(name="weight", kind="number", default="heavy", help="Weight."),)


class MissingFileIsAnOSError(Good):
    meant = "test_a_folder_without_its_files_is_an_error_that_can_be_sent_to_another_process"

    def read(self) -> None:
        (self.checkpoint.folder / "config.json").read_text()


class MissingFileIsNoticedLate(MissingFileIsAnOSError):
    def read(self) -> None:
        pass


class ErrorThatCannotBeSent(MissingFileIsAnOSError):
    def read(self) -> None:
        class Missing(ZooError):
            pass

        if not (self.checkpoint.folder / "config.json").is_file():
            raise Missing("config.json is missing")


class SharesItsState(Good):
    meant = "test_two_may_be_open_at_once"
    limit = 0

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        type(self).limit = self.max_length

    def encoding(self, pair: Pair) -> Encoding:
        self.max_length = type(self).limit
        return super().encoding(pair)


class LeavesAThread(Good):
    meant = "test_closing_ends_its_threads"

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        threading.Thread(target=time.sleep, args=(10,), name="heartbeat", daemon=True).start()


class Suite(ArchitectureContract):
    deadline = 30.0
    factory: Any = Good

    @pytest.fixture
    def reference(self) -> Any:
        return self.factory.reference


BROKEN = [found for found in list(globals().values()) if isinstance(found, type) and hasattr(found, "meant")]
for _broken in BROKEN:
    _name = f"Test{_broken.__name__}"
    globals()[_name] = type(_name, (Suite,), {"factory": _broken, "__module__": __name__})
del _broken
