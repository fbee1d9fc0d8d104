"""The contract of an architecture, as tests. A plugin subclasses ``ArchitectureContract`` and names its class::

    class TestMyReranker(ArchitectureContract):
        factory = MyReranker

Without more, it is opened on a small tokenizer and run on a session that computes a number of the ids it is given. Override
``checkpoint`` and ``session`` for an architecture that wants other files or other outputs.
"""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.registry.architecture import Architecture, ArchitectureFactory
from zoo.registry.card import ModelCard
from zoo.registry.choose import model_options
from zoo.registry.stages import Pipeline
from zoo.scoring.batch_runner import BatchRunner, NoSession
from zoo.scoring.batching import Features
from zoo.testing.base import Contract, given, threads_left, told
from zoo.testing.toy import ToySession, write_toy_tokenizer
from zoo.types import Checkpoint, Encodings, Pair, Session, ShapeRule

PAIRS = (
    Pair("what is panda?", "hi"),
    Pair("what is panda?", "The giant panda is a bear species endemic to China."),
    Pair("what is panda?", "It eats bamboo, " * 5 + "and little else."),
    Pair("how is wine made of grapes?", "Yeast turns the sugar of the must into alcohol."),
    Pair("how is wine made of grapes?", "panda"),
    Pair("a", "b"),
    Pair("大熊猫吃什么?", "大熊猫主要以竹子为食。"),
)
"""Seven pairs of unlike lengths, so that no usual batch size divides them."""
ODD = (
    Pair("", ""), Pair("", "a passage without a query"), Pair("a query without a passage", ""), Pair(" \t\n ", " "),
    Pair("x" * 300, "y" * 300), Pair("emoji 🐼", "🐼" * 20), Pair("عربي", "שלום"), Pair("a\x00b", "\x07\u200b\u202e"),
    Pair("</s>", "[SEP] <pad> [PAD]"),
)  # fmt: skip
"""Texts that real collections hold and that break careless code."""
LIMIT = 96
"""Tokens of an opened architecture in these tests, unless its card allows fewer."""
TOLERANCE = 1e-4


class ArchitectureContract(Contract):
    """What every architecture must do. Set ``factory``; ``options`` are values of its declared options."""

    page = "docs/plugins.md, 'An unusual model'"
    factory: ArchitectureFactory
    options: Mapping[str, str] = {}
    max_length: int = LIMIT
    """Tokens of query and passage together that it is opened with."""

    @pytest.fixture
    def card(self, tmp_path: Path) -> ModelCard:
        """The card it is opened from."""
        return ModelCard(
            name="under-test", folder=tmp_path, description="a card for tests", architecture="under-test", license="MIT",
            languages=["en"], max_length=512,
        )  # fmt: skip

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Checkpoint:
        """The folder it is opened on: a small tokenizer and a config; an empty folder if it requires no files."""
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        if self.requirements.files:
            write_toy_tokenizer(folder)
        return Checkpoint(folder=folder, served_by="contract test")

    @pytest.fixture
    def architecture(self, card: ModelCard, checkpoint: Checkpoint) -> Iterator[Architecture]:
        """The architecture under test, opened on ``checkpoint``; closed after the test."""
        made = self.make(card, checkpoint)
        yield made
        made.close()

    @pytest.fixture
    def session(self, architecture: Architecture) -> Session:
        """What computes; one that gives other outputs than ``logits`` of shape (rows, 1) is for you to write."""
        return self.toy_session(architecture)

    @pytest.fixture
    def reference(self) -> Mapping[Pair, float] | None:
        """Scores of pairs by an independent implementation, if you have one."""
        return None

    @property
    def requirements(self) -> Any:
        """What it requires; see ``zoo.api.Requirements``."""
        return getattr(self.factory, "requires", Architecture.requires)

    def make(
        self, card: ModelCard, checkpoint: Checkpoint, options: Mapping[str, str] | None = None, max_length: int = 0
    ) -> Architecture:
        """It as the runner opens it."""
        factory = type(self).factory
        chosen = model_options(card, factory, self.options if options is None else options)
        limit = min(max_length or self.max_length, card.max_length)
        return factory(card, checkpoint, max_length=limit, query_max_length=limit, options=chosen)

    def toy_session(self, architecture: Architecture, rule: ShapeRule | None = None) -> Session:
        """A session that computes a number of every id and its place, in the batches of ``rule``."""
        if not self.requirements.session:
            return NoSession()
        features = encoded(architecture, PAIRS[:1]).rows[0].features
        return ToySession([*features, "attention_mask"], rule)

    def test_it_is_an_architecture(self, architecture: Architecture) -> None:
        """An architecture is a subclass of ``zoo.api.Architecture``."""
        assert isinstance(architecture, Architecture), told("a zoo.api.Architecture", repr(architecture))

    def test_it_gives_one_encoding_a_pair(self, architecture: Architecture) -> None:
        """``preprocess`` gives one encoding a pair, of integers, with a padding value for every feature."""
        for pairs in (PAIRS, PAIRS[:1], ODD):
            encodings = encoded(architecture, pairs)
            for row in encodings.rows:
                for name, values in row.features.items():
                    kind = np.asarray(values).dtype.kind
                    assert kind in "iu", told("token-level integers", f"values of kind '{kind}' in '{name}'")
                assert row.length > 0, told("at least one token", "an encoding without tokens")

    def test_its_encodings_are_those_of_their_pairs_in_order(self, architecture: Architecture) -> None:
        """Encodings are in the order of their pairs, and depend on nothing else."""
        together = encoded(architecture, PAIRS).rows
        for number, (row, pair) in enumerate(zip(together, PAIRS, strict=True)):
            alone = encoded(architecture, [pair]).rows[0]
            assert listed(row) == listed(alone), told(f"row {number} as it is alone: {listed(alone)}", f"{listed(row)}")

    def test_it_gives_one_finite_score_a_pair(self, architecture: Architecture, session: Session) -> None:
        """``postprocess`` gives one floating-point logit a row, and it is finite."""
        scores = scored(architecture, session, PAIRS, 3)
        assert scores.shape == (len(PAIRS),), told(f"{len(PAIRS)} scores", f"shape {scores.shape}")
        assert np.isfinite(scores).all(), told("finite scores", scores.tolist())

    def test_scores_are_in_the_order_of_the_pairs(self, architecture: Architecture, session: Session) -> None:
        """Scores do not depend on the order in which pairs come."""
        forward = scored(architecture, session, PAIRS, 3)
        backward = scored(architecture, session, PAIRS[::-1], 3)[::-1]
        alike(backward, forward, "the scores of the pairs in reverse order")

    def test_scores_do_not_depend_on_the_batch(self, architecture: Architecture, session: Session) -> None:
        """Scores do not depend on the batch."""
        alone = scored(architecture, session, PAIRS, 1)
        for rows in (2, 3, len(PAIRS)):
            alike(scored(architecture, session, PAIRS, rows), alone, f"batches of {rows}")

    def test_scores_do_not_depend_on_padding(self, architecture: Architecture, session: Session) -> None:
        """A score does not depend on how far its row is padded, nor on what the other rows of the batch are."""
        alone = scored(architecture, session, PAIRS[:2], 1)
        long = [*PAIRS[:2], Pair("a longer query than the others", "and a longer passage, " * 12)]
        alike(scored(architecture, session, long, 3)[:2], alone, "beside a longer row")

    def test_rows_that_only_fill_a_fixed_shape_do_not_count(self, architecture: Architecture) -> None:
        """A compiled engine has a fixed number of rows; the rows that fill it change no score."""
        if not self.requirements.session:
            pytest.skip("it needs no session")
        if "session" in vars(type(self)):
            pytest.skip("the test has a session of its own")
        alone = scored(architecture, self.toy_session(architecture), PAIRS, 1)
        fixed = self.toy_session(architecture, ShapeRule(rows=4, length=max(self.max_length, 8)))
        alike(scored(architecture, fixed, PAIRS, 4), alone, "with rows that fill the shape")

    def test_it_truncates_to_its_length(self, architecture: Architecture) -> None:
        """``preprocess`` truncates to ``max_length`` tokens, and says which text it has cut."""
        if not self.requirements.session:
            pytest.skip("it needs no session, whose inputs have a limit")
        long = Pair("what is panda?", "a giant panda eats bamboo " * 400)
        row = encoded(architecture, [long]).rows[0]
        limit = architecture.max_length
        assert row.length <= limit, told(f"at most {limit} tokens", f"{row.length}")
        assert row.passage_truncated or row.query_truncated, told("passage_truncated", "an encoding that hides the cut")
        short = encoded(architecture, [Pair("a", "b")]).rows[0]
        assert not (short.passage_truncated or short.query_truncated), told("a short pair whole", "marked as truncated")

    def test_a_long_query_does_not_pass_the_limit(self, architecture: Architecture) -> None:
        """The limit holds for a query that fills it by itself."""
        if not self.requirements.session:
            pytest.skip("it needs no session, whose inputs have a limit")
        row = encoded(architecture, [Pair("what is panda? " * 400, "a passage")]).rows[0]
        assert row.length <= architecture.max_length, told(f"at most {architecture.max_length} tokens", row.length)

    def test_empty_and_odd_texts_have_a_score(self, architecture: Architecture, session: Session) -> None:
        """Any two texts are a pair: empty ones, blanks, control characters, special tokens spelled out, any script."""
        for pair in ODD:
            score = scored(architecture, session, [pair], 1)[0]
            assert math.isfinite(score), told(f"a finite score of {tuple(pair)!r}", score)

    def test_the_passage_and_the_query_both_count(self, architecture: Architecture, session: Session) -> None:
        """Pairs that differ in the passage or in the query alone do not all have one score."""
        passages = scored(architecture, session, [Pair("what is panda?", pair.passage) for pair in PAIRS], 3)
        queries = scored(architecture, session, [Pair(pair.query, PAIRS[1].passage) for pair in PAIRS], 3)
        for what, scores in (("passages", passages), ("queries", queries)):
            assert len(set(scores.tolist())) > 1, told(f"other scores for other {what}", f"{scores[0]} for all")

    def test_it_works_in_another_thread_and_in_several(self, architecture: Architecture) -> None:
        """``preprocess`` may be called from another thread than the one that opened the model."""
        wanted = [listed(row) for row in encoded(architecture, PAIRS).rows]
        found: list[Any] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(5):
                    found.append([listed(row) for row in encoded(architecture, PAIRS).rows])
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=work, name="zoo-contract", daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, told("the same encodings in every thread", repr(errors[:1]))
        assert all(each == wanted for each in found), told("the same encodings in every thread", "others")

    def test_outputs_and_inputs_stay_as_they_were(self, architecture: Architecture, session: Session) -> None:
        """``postprocess`` returns a new array and changes neither outputs nor inputs."""
        runner = runner_of(architecture, session, 3)
        for batch in runner.batches(encoded(architecture, PAIRS)):
            outputs = runner.start(batch).result()
            before = {name: np.array(array) for name, array in outputs.items()}
            runner.pipeline.postprocess(outputs, batch.inputs, batch.info)
            for name, array in before.items():
                assert np.array_equal(outputs[name], array), told(f"the output '{name}' as it was", "other values")

    def test_groups_share_the_leading_tokens_they_claim(self, architecture: Architecture) -> None:
        """Rows of one group begin with the same ``shared`` tokens."""
        encodings = encoded(architecture, PAIRS)
        if encodings.groups is None or encodings.shared is None:
            pytest.skip("it makes no groups")
        first: dict[int, list[int]] = {}
        for row, group, shared in zip(encodings.rows, encodings.groups, encodings.shared, strict=True):
            ids = list(next(iter(row.features.values())))
            assert 0 <= shared <= len(ids), told("shared tokens that the row has", f"{shared} of {len(ids)}")
            known = first.setdefault(group, ids[:shared])
            assert ids[:shared] == known, told(f"group {group} begins with {known}", ids[:shared])

    def test_scores_are_those_of_the_reference(
        self, architecture: Architecture, session: Session, reference: Mapping[Pair, float] | None
    ) -> None:
        """Scores are those of an independent implementation."""
        wanted = given(reference, "ArchitectureContract", "reference")
        pairs = [Pair(*pair) for pair in wanted]
        alike(scored(architecture, session, pairs, 2), np.array(list(wanted.values())), "the reference's scores")

    def test_its_options_have_help_and_defaults_that_they_take(self) -> None:
        """Each option is declared with help, and takes its own default."""
        for option in getattr(self.factory, "options", ()):
            assert option.help, told("help for each option", f"none for {option.name}")
            if option.default:
                option.checked(option.default, "the architecture")

    def test_a_folder_without_its_files_is_an_error_that_can_be_sent_to_another_process(
        self, card: ModelCard, tmp_path: Path
    ) -> None:
        """A folder without the files it requires is a ZooError, which survives being sent from a worker process."""
        if not self.requirements.files:
            pytest.skip("it requires no files")
        empty = tmp_path / "empty"
        empty.mkdir()
        try:
            made = self.make(card, Checkpoint(folder=empty, served_by="contract test"))
        except ZooError as error:
            try:
                again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
            except Exception as fault:  # that is what is tested
                raise AssertionError(
                    told("an error that can be pickled", f"{type(fault).__name__}: {fault}")
                ) from fault
            assert str(again) == str(error), told(f"the message '{error}'", f"'{again}'")
        except Exception as error:  # that is the fault
            raise AssertionError(told("a ZooError", f"{type(error).__name__}: {error}")) from error
        else:
            made.close()
            raise AssertionError(told("a ZooError for a folder without files", "an opened model"))

    def test_two_may_be_open_at_once(self, card: ModelCard, checkpoint: Checkpoint) -> None:
        """Objects of one class do not share state: what one run is told is not another's."""
        first = self.make(card, checkpoint)
        before = [listed(row) for row in encoded(first, PAIRS).rows]
        second = self.make(card, checkpoint, max_length=48)
        try:
            encoded(second, PAIRS)
            after = [listed(row) for row in encoded(first, PAIRS).rows]
            assert after == before, told("the encodings of the first object as before", "others")
        finally:
            second.close()
            first.close()

    def test_closing_ends_its_threads(self, card: ModelCard, checkpoint: Checkpoint) -> None:
        """``close`` releases what the object holds."""
        before = set(threading.enumerate())
        made = self.make(card, checkpoint)
        encoded(made, PAIRS)
        made.close()
        left = threads_left(before)
        assert not left, told("no thread after close", ", ".join(left))


def pipeline_of(architecture: Architecture) -> Pipeline:
    """A run of the architecture alone."""
    return Pipeline([("model", architecture)])


def runner_of(architecture: Architecture, session: Session, rows: int) -> BatchRunner:
    """What makes and runs its batches, as in a run."""
    features = Features(optional=architecture.optional_features, supplies=architecture.supplies)
    return BatchRunner(pipeline_of(architecture), session, rows, features)


def encoded(architecture: Architecture, pairs: Sequence[Pair]) -> Encodings:
    """Its encodings, checked as the runner checks them."""
    return pipeline_of(architecture).preprocess(pairs)


def scored(architecture: Architecture, session: Session, pairs: Sequence[Pair], rows: int) -> Any:
    """Its scores of ``pairs``, in their order, in batches of ``rows``."""
    runner = runner_of(architecture, session, rows)
    scores = np.full(len(pairs), np.nan, dtype=np.float32)
    for batch in runner.batches(encoded(architecture, pairs)):
        scores[list(batch.indices)] = runner.scores(batch, runner.start(batch))
    return scores


def listed(row: Any) -> dict[str, list[int]]:
    """The features of an encoding, as plain lists."""
    return {name: [int(value) for value in values] for name, values in row.features.items()}


def alike(scores: Any, wanted: Any, what: str) -> None:
    """Raises AssertionError naming the pair whose score is off."""
    differences = np.abs(np.asarray(scores, dtype=np.float64) - wanted)
    worst = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
    assert differences[worst] <= TOLERANCE, told(
        f"{what}: {float(wanted[worst]):.5f} within {TOLERANCE:g} for pair {worst}", f"{float(scores[worst]):.5f}"
    )
