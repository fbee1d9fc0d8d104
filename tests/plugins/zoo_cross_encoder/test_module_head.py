"""Ettin's form: an encoder and a head in the folders of Sentence Transformers' modules give the scores that the modules give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo_cross_encoder
from families import PAIRS, TORCH_JIT
from modules_of_ettin import ettin
from torch_device import TorchPlugin
from zoo import Reranker
from zoo.checkpoints.resolve import resolve
from zoo.errors import ZooError
from zoo.registry.catalogue import Catalogue

pytestmark = [pytest.mark.export, TORCH_JIT]


def opened(folder: Path) -> Reranker:
    catalogue = Catalogue.of(cards=zoo_cross_encoder, torch=TorchPlugin())
    return Reranker.open(
        "ettin-reranker-17m-v1", device="torch-reference", checkpoint=folder, max_length=64, catalogue=catalogue
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_scores_are_those_of_the_modules(tmp_path: Path, pooling: str, version: int, bias: bool) -> None:
    transformers = pytest.importorskip("transformers")
    logit = ettin(tmp_path / "ettin", pooling=pooling, version=version, bias=bias)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ettin")
    with opened(tmp_path / "ettin") as reranker:
        scores = reranker.score(PAIRS)
    right = [logit(tokenizer([q], [p], truncation="only_second", max_length=64, return_tensors="pt")) for q, p in PAIRS]
    np.testing.assert_allclose(scores, right, atol=1e-5)
    assert np.std(right) > 1e-3


def test_it_is_made_once_and_weights_of_16_bits_are_read(tmp_path: Path) -> None:
    ettin(tmp_path / "ettin", half=True)
    with opened(tmp_path / "ettin") as reranker:
        first, place = reranker.score(PAIRS), reranker.checkpoint.folder
    made = (place / "model.safetensors").stat().st_mtime_ns
    with opened(tmp_path / "ettin") as reranker:
        assert reranker.score(PAIRS).tolist() == first.tolist()
        assert reranker.checkpoint.folder == place
    assert (place / "model.safetensors").stat().st_mtime_ns == made
    assert not list(place.parent.glob("*.partial-*"))


def test_other_weights_of_the_head_are_another_checkpoint(tmp_path: Path) -> None:
    ettin(tmp_path / "one")
    with opened(tmp_path / "one") as reranker:
        place = reranker.checkpoint.folder
    path = tmp_path / "one" / "4_Dense" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x40
    path.write_bytes(content)
    with opened(tmp_path / "one") as reranker:
        assert reranker.checkpoint.folder != place


def test_it_needs_no_card(tmp_path: Path) -> None:
    ettin(tmp_path / "own")
    found = resolve(Catalogue.of(cards=zoo_cross_encoder), str(tmp_path / "own"))
    assert found.card.architecture == "cross-encoder"
    assert found.card.max_length > 512


@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        ("4_Dense/config.json", {"out_features": 3}, "has 3 outputs; a reranker has one"),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.Tanh"},
            "activations other than GELU",
        ),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "is not known; it must be"),
        ("config.json", {"model_type": "bert"}, "puts a head on 'bert'"),
        ("config.json", {"norm_eps": 1e-6}, "norm_eps"),
    ],
)
def test_a_head_of_another_kind_is_refused_by_name(
    tmp_path: Path, place: str, change: dict[str, Any], said: str
) -> None:
    ettin(tmp_path / "odd")
    path = tmp_path / "odd" / place
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ZooError, match=said):
        opened(tmp_path / "odd")


def test_a_part_of_the_head_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    ettin(tmp_path / "part")
    (tmp_path / "part" / "3_LayerNorm" / "model.safetensors").unlink()
    with pytest.raises(ZooError, match=r"3_LayerNorm/model.safetensors: is missing"):
        opened(tmp_path / "part")


def test_a_head_whose_parts_do_not_fit_together_is_refused_by_name(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.numpy").save_file
    ettin(tmp_path / "odd")
    numbers = {"norm.weight": np.ones(5, np.float32), "norm.bias": np.ones(5, np.float32)}
    save_file(numbers, tmp_path / "odd" / "3_LayerNorm" / "model.safetensors")
    with pytest.raises(ZooError, match=r"modules\.json: names modules whose tensors do not fit together"):
        opened(tmp_path / "odd")
