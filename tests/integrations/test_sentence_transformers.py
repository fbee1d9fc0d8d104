"""The shape of sentence-transformers' CrossEncoder, compared with the original on the same checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapted import QUERY, TEXTS
from zoo import Reranker
from zoo.integrations.sentence_transformers import CrossEncoder

pytestmark = pytest.mark.integrations
PAIRS = [(QUERY, text) for text in TEXTS]


@pytest.fixture(scope="module")
def original() -> Any:
    pytest.importorskip("sentence_transformers")
    import sentence_transformers

    from zoo.paths import bundled

    model = sentence_transformers.CrossEncoder(
        str(bundled("models") / "zoo-reranker-tiny"), device="cpu", model_kwargs={"dtype": "float32"}
    )
    return model.float()  # transformers leaves 8-bit floats in their type


def test_predict_gives_what_the_original_gives(reranker: Reranker, original: Any) -> None:
    found, expected = CrossEncoder(reranker).predict(PAIRS), original.predict(PAIRS)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    assert found == pytest.approx(expected, abs=1e-4)
    one = CrossEncoder(reranker).predict(PAIRS[0])
    assert np.shape(one) == np.shape(original.predict(PAIRS[0])) == ()


def test_rank_gives_what_the_original_gives(reranker: Reranker, original: Any) -> None:
    found = CrossEncoder(reranker).rank(QUERY, TEXTS, top_k=3, return_documents=True)
    expected = original.rank(QUERY, TEXTS, top_k=3, return_documents=True)
    assert [set(each) for each in found] == [set(each) for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours["corpus_id"], ours["text"]) == (theirs["corpus_id"], theirs["text"])
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)
        assert type(ours["score"]) is float


def test_an_activation_of_ones_own_is_applied_to_the_logits(reranker: Reranker) -> None:
    found = CrossEncoder(reranker, activation_fn=lambda logits: 2 * logits).predict(PAIRS)
    assert found == pytest.approx(2 * reranker.score(PAIRS), abs=1e-5)


def test_a_checkpoint_that_names_identity_keeps_its_logits(reranker: Reranker, tiny: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = shutil.copytree(tiny, tmp_path / "model", ignore=shutil.ignore_patterns("train"))
    config = json.loads((folder / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config.json").write_text(json.dumps(config))
    with CrossEncoder("zoo-reranker-tiny", checkpoint=folder, device="cpu") as model:
        assert model.predict(PAIRS) == pytest.approx(reranker.score(PAIRS), abs=1e-5)


def test_nothing_gives_nothing(reranker: Reranker) -> None:
    assert CrossEncoder(reranker).rank(QUERY, []) == []
    assert CrossEncoder(reranker).predict([]).shape == (0,)
