"""Scores of the device ``torch`` are transformers', for every family, however rows are batched."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch_checkpoints import OTHERS, PACKED, make, make_batch, open_session, padding_of, row_by_row, score
from zoo.errors import ZooError
from zoo_torch.device import TorchDevice

torch = pytest.importorskip("torch", reason="the device 'torch' needs torch")
pytest.importorskip("safetensors", reason="the device 'torch' needs safetensors")
transformers = pytest.importorskip("transformers", reason="references are computed by transformers")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings(
        "ignore:.*torch.jit:DeprecationWarning"
    ),  # torch's compiler, which transformers' ModernBERT imports
]

LENGTHS = (100, 57, 31, 31, 8, 3, 1)
EXACT = 1e-5
"""float32 on models of four layers: a few roundings of scores near 1."""


# Jagged tensors have no sliding windows, so ModernBERT has one form less.
FORMS = [(name, "padded") for name in PACKED] + [(name, "nested") for name in PACKED if "modernbert" not in name]


@pytest.mark.parametrize(("name", "attention"), FORMS)
def test_packed_scores_are_those_of_transformers(
    name: str, attention: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = make(name, tmp_path)
    inputs = make_batch(LENGTHS, padding=padding_of(model))
    with open_session(TorchDevice(), tmp_path, attention=attention) as session:
        scores = score(session, inputs)
        names = session.input_names
    expected = row_by_row(model, inputs, names)
    assert np.ptp(expected) > 0.1, "the scores do not differ, so they prove nothing"
    np.testing.assert_allclose(scores, expected, atol=EXACT, rtol=0)
    assert f"packed, attention {attention}" in caplog.text


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_run_through_transformers_and_score_alike(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = make(name, tmp_path)
    inputs = make_batch(LENGTHS, padding=padding_of(model))
    with open_session(TorchDevice(), tmp_path) as session:
        scores = score(session, inputs)
        names = session.input_names
    np.testing.assert_allclose(scores, row_by_row(model, inputs, names), atol=EXACT, rtol=0)
    assert "runs through transformers, padded" in caplog.text


@pytest.mark.parametrize("name", ["xlm-roberta", "bert", "modernbert, mean", "modernbert, last layer global", "qwen3"])
def test_a_score_depends_on_neither_the_batch_nor_the_order(name: str, tmp_path: Path) -> None:
    model = make(name, tmp_path)
    inputs = make_batch(LENGTHS, padding=padding_of(model))
    order = [3, 0, 6, 2, 5, 1, 4]
    shuffled = {key: array[order] for key, array in inputs.items()}
    wider = {key: np.pad(array, ((0, 0), (0, 9))) for key, array in make_batch(LENGTHS[1:]).items()}
    for key in wider:
        wider[key][:, :57] = inputs[key][1:, :57]
    with open_session(TorchDevice(), tmp_path) as session:
        together = score(session, inputs)
        alone = [score(session, {key: array[row : row + 1] for key, array in inputs.items()})[0] for row in range(7)]
        np.testing.assert_allclose(alone, together, atol=EXACT, rtol=0)
        np.testing.assert_allclose(score(session, shuffled), together[order], atol=EXACT, rtol=0)
        np.testing.assert_allclose(score(session, wider), together[1:], atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", ["xlm-roberta", "camembert"])
def test_a_padding_token_that_a_text_spells_out_is_counted_as_transformers_counts_it(name: str, tmp_path: Path) -> None:
    model = make(name, tmp_path)
    inputs = make_batch((20, 12, 5), padding=1)
    inputs["input_ids"][0, 7] = inputs["input_ids"][1, 0] = inputs["input_ids"][2, 4] = 1
    with open_session(TorchDevice(), tmp_path) as session:
        scores = score(session, inputs)
        np.testing.assert_allclose(scores, row_by_row(model, inputs, session.input_names), atol=EXACT, rtol=0)


def test_packed_and_padded_models_score_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    make("bert", tmp_path)
    inputs = make_batch(LENGTHS)
    with open_session(TorchDevice(), tmp_path) as packed, open_session(TorchDevice(), tmp_path, packed="off") as padded:
        np.testing.assert_allclose(score(packed, inputs), score(padded, inputs), atol=EXACT, rtol=0)
    assert "BertForSequenceClassification of transformers" in caplog.text


@pytest.mark.parametrize(("precision", "worst"), [("fp16", 0.05), ("bf16", 0.4)])
@pytest.mark.parametrize("name", ["xlm-roberta", "electra", "modernbert, mean", "deberta-v2"])
def test_half_precision_stays_near_and_keeps_the_order(name: str, precision: str, worst: float, tmp_path: Path) -> None:
    model = make(name, tmp_path)
    inputs = make_batch(np.linspace(90, 5, 30).astype(int).tolist(), padding=padding_of(model))
    with open_session(TorchDevice(), tmp_path, precision) as session:  # type: ignore[arg-type]
        scores = score(session, inputs)
        expected = row_by_row(model, inputs, session.input_names)
    assert np.abs(scores - expected).max() <= worst
    assert np.abs(scores - expected).max() > 1e-6, "it was computed in float32"
    assert np.corrcoef(scores, expected)[0, 1] > 0.98


def test_a_checkpoint_in_shards_and_in_half_precision_is_read(tmp_path: Path) -> None:
    model = make("xlm-roberta", tmp_path / "whole").half().float()
    model.half().save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    inputs = make_batch(LENGTHS, padding=1)
    with open_session(TorchDevice(), tmp_path / "shards") as session:
        expected = row_by_row(model.float(), inputs, session.input_names)
        np.testing.assert_allclose(score(session, inputs), expected, atol=EXACT, rtol=0)


def test_names_of_converted_checkpoints_are_known(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make("bert", tmp_path)
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    save_file(tensors, tmp_path / "model.safetensors")
    inputs = make_batch(LENGTHS)
    with open_session(TorchDevice(), tmp_path) as session:
        expected = row_by_row(model, inputs, session.input_names)
        np.testing.assert_allclose(score(session, inputs), expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize("negative", [11, None])
@pytest.mark.parametrize("kind", ["Qwen3", "Gemma2"])
def test_a_language_model_gives_the_logits_of_its_score_tokens_at_each_rows_last_token(
    kind: str, negative: int | None, tmp_path: Path
) -> None:
    """Reference: the publishers' recipe, left padding and logits over the whole vocabulary."""
    capped = {"final_logit_softcapping": 1.5} if kind == "Gemma2" else {}
    model = make(kind, tmp_path, task="CausalLM", **capped)
    inputs = make_batch((40, 17, 17, 5, 1))
    left = {key: np.zeros_like(array) for key, array in inputs.items()}
    for row, length in enumerate(inputs["attention_mask"].sum(axis=1)):
        for key, array in inputs.items():
            left[key][row, 40 - length :] = array[row, :length]
    with torch.no_grad():
        mask = torch.from_numpy(left["attention_mask"])
        places = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(torch.from_numpy(left["input_ids"]), attention_mask=mask, position_ids=places).logits[:, -1]
    expected = logits[:, 50] - (logits[:, negative] if negative is not None else 0.0)
    head = {"kind": "tokens", "positive": 50, "negative": negative}
    with open_session(TorchDevice(), tmp_path, head=head) as session:
        for padded in (inputs, left):
            np.testing.assert_allclose(score(session, padded), expected.numpy(), atol=2e-5, rtol=0)


def test_a_language_model_without_score_tokens_is_refused(tmp_path: Path) -> None:
    make("Qwen3", tmp_path, task="CausalLM")
    with pytest.raises(ZooError, match=r"Qwen3ForCausalLM gives logits over a vocabulary.*tokens that make the score"):
        open_session(TorchDevice(), tmp_path)


def test_a_token_of_the_score_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    make("Qwen3", tmp_path, task="CausalLM")
    with pytest.raises(ZooError, match="token id 9693 is not in the model's vocabulary of 120"):
        open_session(TorchDevice(), tmp_path, head={"kind": "tokens", "positive": 9693, "negative": 2})


def test_a_head_of_kind_label_is_the_classifier_of_the_checkpoint(tmp_path: Path) -> None:
    model = make("xlm-roberta", tmp_path)
    inputs = make_batch(LENGTHS, padding=1)
    with open_session(TorchDevice(), tmp_path, head={"kind": "label"}) as session:
        expected = row_by_row(model, inputs, session.input_names)
        np.testing.assert_allclose(score(session, inputs), expected, atol=EXACT, rtol=0)


@pytest.mark.parametrize(
    "head",
    [{"kind": "regression"}, {"kind": "tokens"}, {"kind": "tokens", "positive": "yes"}, {"kind": "label", "layer": 8}],
)
def test_a_head_that_is_not_known_is_refused(head: dict[str, Any], tmp_path: Path) -> None:
    make("xlm-roberta", tmp_path)
    with pytest.raises(ZooError, match=r"the head \{.* is not known"):
        open_session(TorchDevice(), tmp_path, head=head)


def test_an_encoder_without_a_trained_classifier_is_refused(tmp_path: Path) -> None:
    make("bert", tmp_path, task="MaskedLM")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(ZooError, match="no trained classifier"):
        open_session(TorchDevice(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ZooError, match="no trained classifier"):
        open_session(TorchDevice(), tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"hidden_act": "silu"},
        {"quantization_config": {"quant_method": "gptq"}},
        {"auto_map": {"AutoModel": "modeling.py--Model"}},
        {"architectures": ["BertModel"]},
    ],
    ids=str,
)
def test_arithmetic_that_is_not_known_is_not_packed(config: dict[str, object]) -> None:
    from zoo_torch.families import NotPackable, shape_of

    known = {**PACKED["bert"][1], "model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    shape_of(known)
    with pytest.raises(NotPackable):
        shape_of({**known, **config})


def test_weights_of_another_model_are_told_by_name(tmp_path: Path) -> None:
    make("bert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 63}))
    with pytest.raises(ZooError, match=r"'bert.encoder.layer.0.intermediate.dense.weight' has shape \(64, 32\)"):
        open_session(TorchDevice(), tmp_path)


def test_weights_saved_from_inside_another_model_are_told_by_their_prefix(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ZooError, match=r"Its names begin with 'module\.'"):
        open_session(TorchDevice(), tmp_path)
