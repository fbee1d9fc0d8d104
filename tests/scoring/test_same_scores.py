"""The same scores whatever the batch, its order, its budget, and how many batches are computed at once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.reranker import Reranker
from zoo.scoring.scorer import Scorer
from zoo.settings import RunSettings
from zoo.types import Pair

TOLERANCE = 1e-5
"""Largest difference of a float32 logit: sums are made in another order where rows or padding differ."""

WORDS = ["panda", "bamboo", "eats", "the", "a", "in", "China", "熊猫", "吃", "竹子", "中国", "sleeps", "winter"]
queries = st.sampled_from(["what is panda?", "熊猫吃什么?", ""])
passages = st.builds(
    lambda seed, count: " ".join(random.Random(seed).choices(WORDS, k=count)), st.integers(0, 99), st.integers(0, 200)
)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Reranker]]:
    """The embedded model opened for one pair at a time, and for several batches at once."""
    with ExitStack() as stack:

        def opened(batch_size: int | None, threads: int) -> Reranker:
            wanted = RunSettings(
                model="zoo-reranker-tiny", target="cpu", batch_size=batch_size, threads=threads, offline=True
            )
            return stack.enter_context(Reranker.from_settings(wanted))

        yield {"one": opened(1, 1), "parallel_batches": opened(None, 3)}


@settings(max_examples=10, deadline=None)
@given(
    pairs=st.lists(st.builds(Pair, queries, passages), min_size=1, max_size=16),
    rows=st.none() | st.integers(1, 40),
    shuffle=st.integers(0, 9),
)
def test_scores_do_not_depend_on_the_batch(
    runs: dict[str, Reranker], pairs: list[Pair], rows: int | None, shuffle: int
) -> None:
    alone = dict(zip(pairs, runs["one"].score(pairs).tolist(), strict=True))
    random.Random(shuffle).shuffle(pairs)
    for run in runs.values():
        expected = [alone[pair] for pair in pairs]
        together = list(Scorer(run.pipeline, run.session, rows).score(pairs))
        assert [pair for pair, _ in together] == pairs
        assert [score for _, score in together] == pytest.approx(expected, abs=TOLERANCE)
        assert run.score(pairs).tolist() == pytest.approx(expected, abs=TOLERANCE)


def test_a_run_with_parallel_batches_computes_several_at_once(runs: dict[str, Reranker]) -> None:
    assert runs["one"].session.shape_rule.parallel_batches == 1
    assert runs["parallel_batches"].session.shape_rule.parallel_batches == 3


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_closing_a_session_ends_the_batch_that_is_being_computed(device: str) -> None:
    import numpy as np

    if device == "openvino":
        pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    wanted = RunSettings(model="zoo-reranker-tiny", target=device, batch_size=1, threads=1, offline=True)
    with Reranker.from_settings(wanted) as run:
        ids = np.ones((1500, 500), dtype=np.int64)
        future = run.session.submit(dict.fromkeys(run.session.input_names, ids))
        deadline = time.monotonic() + 60
        while not future.running() and time.monotonic() < deadline:
            time.sleep(0.001)
        run.session.close()
        with pytest.raises(ZooError, match=r"failed on a batch|this session is closed"):
            future.result(timeout=0)
