"""What prompts begin with in common is computed once, and changes no score: in any batch, order, mode, and in workers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_publishers import opened

import zoo_decoder
from families import TORCH_JIT, make_decoder
from graph_device import GraphDevice
from zoo import Reranker
from zoo.scoring.processes import Processes
from zoo.types import Artifact, BatchInfo, Pair, SessionOptions, ShapeRule, Tensors
from zoo_decoder.shared_prefix import PastShape, SharedPrefixes, common_length

pytestmark = [pytest.mark.export, TORCH_JIT]

CARD = "qwen3-reranker-0.6b"
QUERIES = ["what is panda?", "where do giant pandas live and what do they eat", "q"]
PASSAGES = [
    "hi",
    "The giant panda eats bamboo. " * 6,
    "大熊猫吃竹子。",
    "",
    "a bear species endemic to China",
    "x " * 40,
]
PAIRS = [(query, passage) for passage in PASSAGES for query in QUERIES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("decoder")
    make_decoder(place, "qwen3")
    return place


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[float]:
    """The scores of every prompt by itself, nothing shared."""
    with opened(CARD, folder, model_options={"shared_prefix": "off"}, batch_size=1) as reranker:
        return reranker.score(PAIRS).tolist()


class Counting:
    """A session that counts the tokens it is given, and those with a past."""

    device_seconds = None

    def __init__(self, session: Any) -> None:
        self._session = session
        self.input_names, self.shape_rule = session.input_names, session.shape_rule
        self.calls: list[tuple[int, int, int]] = []

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        past = next((array.shape[2] for name, array in inputs.items() if name.startswith("past_")), 0)
        self.calls.append((*inputs["input_ids"].shape, past))
        return self._session.submit(inputs, outputs)  # type: ignore[no-any-return]

    @property
    def tokens(self) -> int:
        return sum(rows * length for rows, length, _ in self.calls)

    def close(self) -> None:
        self._session.close()


def counted(reranker: Reranker) -> Counting:
    """The reranker's session, counting."""
    session = Counting(reranker.session)
    reranker.session = session  # type: ignore[assignment]
    object.__setattr__(reranker._queue._runner, "session", session)
    return session


@pytest.mark.parametrize("batch_size", [1, 3, 7, None])
def test_scores_are_those_of_whole_prompts_in_any_batch(
    folder: Path, whole: list[float], batch_size: int | None
) -> None:
    with opened(CARD, folder, batch_size=batch_size) as reranker:
        np.testing.assert_allclose(reranker.score(PAIRS), whole, atol=2e-6)
        np.testing.assert_allclose(reranker.score(PAIRS[::-1]), whole[::-1], atol=2e-6)
        with reranker.exclusive() as scorer:
            np.testing.assert_allclose([score for _, score in scorer.score(Pair(*p) for p in PAIRS)], whole, atol=2e-6)


def test_the_candidates_of_a_query_share_all_up_to_the_document(folder: Path) -> None:
    passages = [f"passage number {number} of a panda" for number in range(20)]
    with opened(CARD, folder, model_options={"shared_prefix": "off"}) as reranker:
        plain = counted(reranker)
        right = {each.index: each.score for each in reranker.rank("what is panda?", passages)}
    with opened(CARD, folder) as reranker:
        session = counted(reranker)
        ranked = {each.index: each.score for each in reranker.rank("what is panda?", passages)}
        prompts = reranker.pipeline.preprocess([Pair("what is panda?", passage) for passage in passages])
    assert ranked == pytest.approx(right, abs=2e-6)
    [shared] = set(prompts.shared or ())
    assert shared > 100
    prefixes = [call for call in session.calls if call[0] == 1 and call[1] + call[2] == shared]
    assert len(prefixes) == 1, "the prefix is run once for all batches"
    assert session.tokens < 0.6 * plain.tokens


def test_prompts_of_other_queries_share_the_template_and_the_instruction(folder: Path) -> None:
    pairs = [(f"query {number}", f"document {number}") for number in range(12)]
    with opened(CARD, folder, model_options={"shared_prefix": "off"}, batch_size=1) as reranker:
        right = reranker.score(pairs)
    with opened(CARD, folder, batch_size=4) as reranker:
        session = counted(reranker)
        np.testing.assert_allclose(reranker.score(pairs), right, atol=2e-6)
    assert max(rows for rows, _, past in session.calls if past > 80) == 4, "rows of several queries are one batch"


def test_a_known_past_is_cut_or_continued(folder: Path) -> None:
    with opened(CARD, folder) as reranker:
        session = counted(reranker)
        [ids] = reranker.pipeline.preprocess([Pair("what is panda?", "hi")]).rows
        row = tuple(ids.features["input_ids"])
        prefixes = SharedPrefixes(PastShape(2, 16))
        long = prefixes.past(session, row[:60])
        assert session.tokens == 60
        short = prefixes.past(session, row[:30])
        assert session.tokens == 60, "cut, not computed"
        longer = prefixes.past(session, row[:80])
        assert session.tokens == 80, "carried on"
        fresh = SharedPrefixes(PastShape(2, 16)).past(session, row[:80])
    for name, array in fresh.items():
        np.testing.assert_allclose(longer[name], array, atol=1e-5)
        np.testing.assert_allclose(long[name], array[:, :, :60], atol=1e-5)
        assert (short[name] == long[name][:, :, :30]).all()


def test_pasts_take_a_bounded_amount_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_decoder.shared_prefix.MEMORY", 60_000)
    with opened(CARD, folder) as reranker:
        prefixes = SharedPrefixes(PastShape(2, 16))
        for start in range(5, 25):
            prefixes.past(reranker.session, tuple(range(start, start + 40)))
            assert prefixes._held <= 60_000


def opener(folder: Path, artifact: Artifact, options: SessionOptions) -> Any:
    return GraphDevice().open(Artifact(model=folder, precision="fp32", origin="a test", head=artifact.head), options)


def test_workers_give_the_same_scores(folder: Path, whole: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo import reranker as module

    def in_workers(device: Any, artifact: Artifact, options: SessionOptions, workers: int) -> Any:
        return Processes.workers(functools.partial(opener, folder), artifact, options, 2)

    monkeypatch.setattr(module, "_open_session", in_workers)
    with opened(CARD, folder, batch_size=3, threads=2) as reranker:
        assert isinstance(reranker.session, Processes)
        np.testing.assert_allclose(reranker.score(PAIRS), whole, atol=2e-6)


def test_a_failure_of_a_part_is_the_batchs(folder: Path) -> None:
    class Failing:
        input_names = ("input_ids", "attention_mask", "past_keys_0", "past_values_0")
        shape_rule = ShapeRule()

        def submit(self, inputs: Tensors, outputs: object = None) -> Future[Tensors]:
            future: Future[Tensors] = Future()
            future.set_exception(RuntimeError("the card is gone"))
            return future

    ids = np.arange(40, dtype=np.int64).reshape(2, 20)
    batch = BatchInfo(rows=2, tokens=40, groups=(0, 0), shared=(0, 0))
    future = SharedPrefixes(PastShape(1, 2)).submit(
        Failing(), {"input_ids": ids, "attention_mask": np.ones_like(ids)}, batch
    )  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="the card is gone"):
        future.result(5)


def test_common_prefixes_are_counted() -> None:
    assert common_length((1, 2, 3), (1, 2, 4)) == 2
    assert common_length((), (1,)) == 0
    assert common_length((1, 2), (1, 2, 3)) == 2
    assert common_length((2, 2), (1, 2)) == 0
    assert zoo_decoder.__doc__
