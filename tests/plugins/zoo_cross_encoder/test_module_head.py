"""Ettin's form: an encoder and a head in the folders of Sentence Transformers' modules give the scores that the modules give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo_cross_encoder
from families import PAIRS, TORCH_JIT, make
from torch_device import TorchPlugin
from zoo import Reranker
from zoo.checkpoints.resolve import resolve
from zoo.errors import ZooError
from zoo.registry.catalogue import Catalogue

pytestmark = [pytest.mark.export, TORCH_JIT]

GELU = "torch.nn.modules.activation.GELU"
IDENTITY = "torch.nn.modules.linear.Identity"
TYPES = {5: "sentence_transformers.models.", 6: "sentence_transformers.base.modules.some_file."}


def ettin(folder: Path, *, pooling: str = "cls", version: int = 5, bias: bool = False, half: bool = False) -> Any:
    """Write a random checkpoint of modules; returns a function from ids to the logit, by torch's own layers."""
    classifier = make(folder, "modernbert")
    import torch
    from safetensors.torch import save_file

    encoder, width = classifier.model, classifier.config.hidden_size
    (folder / "model.safetensors").unlink()
    encoder.save_pretrained(folder)
    torch.manual_seed(3)
    dense, norm, last = torch.nn.Linear(width, width, bias=bias), torch.nn.LayerNorm(width), torch.nn.Linear(width, 1)
    for parameter in (*dense.parameters(), *norm.parameters(), *last.parameters()):
        torch.nn.init.normal_(parameter, std=0.4)
    if half:
        for module in (dense, norm, last):
            module.to(torch.bfloat16).to(torch.float32)
    flags = {
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "include_prompt": True,
    }
    configs = [
        {"word_embedding_dimension": width, **flags}
        if version == 5
        else {"embedding_dimension": width, "pooling_mode": pooling},
        {"in_features": width, "out_features": width, "bias": bias, "activation_function": GELU},
        {"dimension": width},
        {"in_features": width, "out_features": 1, "bias": True, "activation_function": IDENTITY},
    ]
    kinds = ["Transformer", "Pooling", "Dense", "LayerNorm", "Dense"]
    modules = []
    for number, kind in enumerate(kinds):
        path = f"{number}_{kind}" if number else ""
        modules.append({"idx": number, "name": str(number), "path": path, "type": TYPES[version] + kind})
        if number:
            (folder / path).mkdir()
            (folder / path / "config.json").write_text(json.dumps(configs[number - 1]))
    for place, name, module in (
        ("2_Dense", "linear", dense),
        ("3_LayerNorm", "norm", norm),
        ("4_Dense", "linear", last),
    ):
        dtype = torch.bfloat16 if half else torch.float32
        tensors = {f"{name}.{key}": value.to(dtype).contiguous() for key, value in module.state_dict().items()}
        save_file(tensors, folder / place / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(modules))

    def logit(inputs: Any) -> float:
        with torch.inference_mode():
            tokens = encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state[0]
            pooled = tokens[0] if pooling == "cls" else tokens.mean(0)
            return float(last(norm(torch.nn.functional.gelu(dense(pooled)))))

    return logit


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
