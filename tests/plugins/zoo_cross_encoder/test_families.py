"""Every family of encoders reads its whole length and no more, and gives transformers' scores for the ids of its own tokenizer class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import zoo_cross_encoder
from families import ENCODERS, PAIRS, TORCH_JIT, make, reference_scores
from torch_device import TorchPlugin
from zoo import Reranker
from zoo.errors import ZooError
from zoo.registry.catalogue import Catalogue

pytestmark = [pytest.mark.export, TORCH_JIT]
LONG = [("what is panda?", "the giant panda eats bamboo " * 60)]


def opened(folder: Path, max_length: int | None = None) -> Reranker:
    catalogue = Catalogue.of(cards=zoo_cross_encoder, torch=TorchPlugin())
    return Reranker.open(
        "bge-reranker-v2-m3", device="torch-reference", checkpoint=folder, max_length=max_length, catalogue=catalogue
    )


@pytest.mark.parametrize("family", ENCODERS)
def test_scores_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    model = make(tmp_path, family)
    with opened(tmp_path, 64) as reranker:
        scores = reranker.score(PAIRS)
    np.testing.assert_allclose(scores, reference_scores(model, tmp_path, PAIRS, 64), atol=1e-5)
    assert np.std(scores) > 1e-3


@pytest.mark.parametrize(
    ("family", "limit"),
    [
        ("camembert", 62),
        ("data2vec-text", 62),
        ("roberta", 62),
        ("xlm-roberta", 62),
        ("mpnet", 62),
        ("bert", 64),
        ("electra", 64),
    ],
)
def test_the_longest_input_fills_the_positions_and_a_longer_one_is_refused_before_anything_runs(
    tmp_path: Path, family: str, limit: int
) -> None:
    pad = {"pad_token_id": 0} if family == "mpnet" else {}  # MPNet's own padding id is 1 whatever is written there
    model = make(tmp_path, family, positions=64, **pad)
    if "roberta" in family or family in ("camembert", "data2vec-text"):
        limit = 64 - model.config.pad_token_id - 1
    with opened(tmp_path, limit) as reranker:
        np.testing.assert_allclose(reranker.score(LONG), reference_scores(model, tmp_path, LONG, limit), atol=1e-5)
    with pytest.raises((IndexError, RuntimeError)):  # by whether the family looks rows up or adds a slice of the table
        reference_scores(model, tmp_path, LONG, limit + 1)
    with pytest.raises(ZooError, match=rf"can read \({limit} tokens\)"):
        opened(tmp_path, limit + 1)
