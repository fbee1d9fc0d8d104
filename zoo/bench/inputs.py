"""Batches of given shapes, with random tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.reranker import Reranker
from zoo.scoring.batch_runner import BatchRunner
from zoo.scoring.batching import Batch
from zoo.types import Encoding, Encodings, Pair

WORDS = "the giant panda is a bear species endemic to China and grapes make wine while tides follow the moon "


def runner_of(reranker: Reranker) -> BatchRunner:
    """What computes a batch of this reranker, whatever its rows."""
    with reranker.exclusive() as scorer:
        return scorer.runner


def random_batch(runner: BatchRunner, rows: int, length: int, seed: int = 0) -> Batch:
    """``rows`` rows of exactly ``length`` real tokens, or padded to what the session is fixed to. Raises ZooError if it does not fit.

    Token ids are drawn from those that the model's own ``preprocess`` gives for text, so that each is in the vocabulary.
    """
    random = np.random.default_rng(seed)
    real = runner.pipeline.preprocess([Pair(WORDS, WORDS * 20)])
    (row,) = real.rows
    values: dict[str, NDArray[Any]] = {name: np.asarray(each) for name, each in row.features.items()}

    def one() -> Encoding:
        places = random.integers(0, row.length, size=length)
        return Encoding({name: each[places].tolist() for name, each in values.items()})

    encodings = Encodings([one() for _ in range(rows)], real.padding, real.padding_side)
    return runner.batch(encodings)
