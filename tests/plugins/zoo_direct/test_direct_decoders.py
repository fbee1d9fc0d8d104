"""Decoders: one number at the last token, on the right side of which there may be padding, and a prefix that rows share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from direct_checkpoints import (
    BERT,
    DECODERS,
    LABEL,
    QWEN2,
    QWEN3,
    Config,
    batches,
    difference,
    misread,
    nothing_before,
    open_session,
    proof_batches,
    run,
    write,
)
from zoo.errors import ZooError
from zoo_direct.build import FORMS, write_graph
from zoo_direct.families import supports
from zoo_direct.proof import expected

pytestmark = [pytest.mark.lowest]

TOLERANCE = 1e-6
"""Of the largest logit."""
YES_NO = {"kind": "tokens", "positive": 9, "negative": 4}
YES = {"kind": "tokens", "positive": 100, "negative": None}
LENGTHS = ((1,), (7,), (9, 5, 1), (30, 30), (57, 3, 20), (200,))
VARIANTS: list[tuple[str, Config, dict[str, Any]]] = [
    ("qwen3", {}, YES_NO),
    ("qwen3", {"tie_word_embeddings": False}, YES),
    ("qwen3", {"attention_bias": True, "num_key_value_heads": 4, "hidden_act": "gelu"}, YES_NO),
    ("qwen3", {"num_key_value_heads": 1, "num_hidden_layers": 1}, YES_NO),
    ("qwen3", {"architectures": ["Qwen3ForSequenceClassification"], "id2label": {"0": "LABEL_0"}}, LABEL),
    ("qwen2", {}, YES_NO),
    ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 4}, YES),
    ("qwen2", {"architectures": ["Qwen2ForSequenceClassification"], "id2label": {"0": "LABEL_0"}}, LABEL),
    ("gemma", {}, YES),
    ("gemma", {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "attention_bias": True}, YES_NO),
    ("gemma", {"tie_word_embeddings": False, "architectures": ["GemmaForCausalLM"]}, YES_NO),
]  # fmt: skip


def checkpoint(folder: Path, kind: str, change: Config, **how: Any) -> tuple[Path, Config]:
    config = {**DECODERS[kind], **change}
    return write(folder, config, **how), config


@pytest.mark.parametrize(("kind", "change", "head"), VARIANTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_graph_gives_what_the_proof_gives(
    tmp_path: Path, kind: str, change: Config, head: dict[str, Any], form: str
) -> None:
    folder, config = checkpoint(tmp_path, kind, change)
    given = batches(config, LENGTHS)
    logits = expected(folder, given, head)
    graph = write_graph(folder, form=form, head=head)
    assert difference(logits, run(graph.model, folder, given)) < TOLERANCE
    with_prefix = write_graph(folder, form=form, head=head, shared_prefix=True)
    assert difference(logits, run(with_prefix.model, folder, given)) < TOLERANCE, "with an empty prefix"


@pytest.mark.parametrize(("kind", "change"), [("qwen3", {}), ("qwen2", {}), ("gemma", {"num_hidden_layers": 1})])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shared", [1, 6, 19])
def test_a_prefix_that_rows_share_is_computed_once(
    tmp_path: Path, kind: str, change: Config, form: str, shared: int
) -> None:
    folder, config = checkpoint(tmp_path, kind, change)
    (batch,) = batches(config, [(40, 20, 33)])
    batch["input_ids"][:, :shared] = batch["input_ids"][0, :shared]
    session = open_session(write_graph(folder, form=form, head=YES_NO, shared_prefix=True).model, folder)
    made = [node.name for node in session.get_outputs() if node.name.startswith("new_")]
    assert len(made) == 2 * config["num_hidden_layers"]
    prefix = {name: array[:1, :shared] for name, array in batch.items()}
    keys = session.run(made, {**prefix, **nothing_before(session)})
    past = {name.replace("new", "past"): array for name, array in zip(made, keys, strict=True)}
    rest = {name: array[:, shared:] for name, array in batch.items()}
    (scores,) = session.run(["logits"], {**rest, **past})
    assert difference(expected(folder, [batch], YES_NO), [scores]) < TOLERANCE


def test_a_conversation_of_prefixes_can_go_on(tmp_path: Path) -> None:
    """System text, then a query, then passages: each part is a prefix of the next."""
    folder, config = checkpoint(tmp_path, "qwen3", {})
    (batch,) = batches(config, [(40, 31)])
    batch["input_ids"][:, :15] = batch["input_ids"][0, :15]
    session = open_session(write_graph(folder, form="onnxruntime", head=YES, shared_prefix=True).model, folder)
    names = [node.name for node in session.get_outputs() if node.name.startswith("new_")]
    past = nothing_before(session)
    for begin, end in ((0, 6), (6, 15)):
        part = {name: array[:1, begin:end] for name, array in batch.items()}
        for name, array in zip(names, session.run(names, {**part, **past}), strict=True):
            key = name.replace("new", "past")
            past[key] = np.concatenate([past[key], array], axis=2)
    (scores,) = session.run(["logits"], {**{name: array[:, 15:] for name, array in batch.items()}, **past})
    assert difference(expected(folder, [batch], YES), [scores]) < TOLERANCE


@pytest.mark.parametrize(("dtype", "shards"), [("F16", 1), ("BF16", 2)])
@pytest.mark.parametrize("kind", ["qwen3", "gemma"])
def test_half_precision_and_shards_are_read_where_they_lie(tmp_path: Path, kind: str, dtype: str, shards: int) -> None:
    folder, config = checkpoint(tmp_path, kind, {"tie_word_embeddings": False}, dtype=dtype, shards=shards)
    given = batches(config, LENGTHS)
    logits = expected(folder, given, YES_NO)
    for form in FORMS:
        graph = write_graph(folder, form=form, head=YES_NO)
        assert difference(logits, run(graph.model, folder, given)) < TOLERANCE, form


def test_what_is_padding_changes_no_score(tmp_path: Path) -> None:
    folder, config = checkpoint(tmp_path, "qwen2", {})
    graph = write_graph(folder, form="onnxruntime", head=YES)
    (batch,) = batches(config, [(9, 4)])
    others = {**batch, "input_ids": np.where(batch["attention_mask"] == 1, batch["input_ids"], 77)}
    together, garbage = run(graph.model, folder, [batch, others])
    assert np.array_equal(together, garbage)


@pytest.mark.parametrize("wrapper", ["", "module.model.", "model.model."])
def test_names_with_another_prefix_are_found(tmp_path: Path, wrapper: str) -> None:
    """A bare model without ``model.``, and one that a training script has wrapped."""
    folder, config = checkpoint(tmp_path, "qwen3", {}, rename=lambda name: name.replace("model.", wrapper, 1))
    given = batches(config, LENGTHS)
    graph = write_graph(folder, form="onnxruntime", head=YES_NO)
    assert difference(expected(folder, given, YES_NO), run(graph.model, folder, given)) < TOLERANCE


def test_a_head_that_is_stored_though_it_is_tied_is_a_note(tmp_path: Path) -> None:
    folder, _ = checkpoint(tmp_path, "qwen3", {}, extra={"lm_head.weight": (101, 42)})
    assert "lm_head.weight" in write_graph(folder, form="onnxruntime", head=YES_NO).note


def test_only_two_rows_of_a_language_models_head_are_in_the_graph(tmp_path: Path) -> None:
    folder, _ = checkpoint(tmp_path, "qwen2", {})
    model = write_graph(folder, form="onnxruntime", head=YES_NO).model
    assert b"lm_head.weight[9:10]" in model
    assert b"lm_head.weight[4:5]" in model
    assert model.count(b"lm_head.weight[") == 2 * 2, "each is declared once and read once"


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 10000.0},
        {"rms_norm_eps": 1e-5},
        {"hidden_act": "gelu"},
        {"tie_word_embeddings": True},
    ],
    ids=str,
)
def test_a_misread_configuration_fails_the_proof(tmp_path: Path, change: Config) -> None:
    config = {**QWEN3, "tie_word_embeddings": False}
    folder = write(tmp_path / "right", config)
    given = proof_batches(folder, config)
    wrong = misread(folder, config, change)
    graph = write_graph(wrong, form="onnxruntime", head=YES_NO)
    assert difference(expected(folder, given, YES_NO), run(graph.model, wrong, given)) > 5 * TOLERANCE


@pytest.mark.parametrize("head", [YES, {**YES_NO, "positive": 4, "negative": 9}, {**YES_NO, "negative": 5}], ids=str)
def test_another_head_fails_the_proof(tmp_path: Path, head: dict[str, Any]) -> None:
    folder, config = checkpoint(tmp_path, "qwen3", {})
    given = proof_batches(folder, config)
    graph = write_graph(folder, form="onnxruntime", head=head)
    assert difference(expected(folder, given, YES_NO), run(graph.model, folder, given)) > 1e-3


def test_files_of_transformers_5_say_the_same_in_other_words(tmp_path: Path) -> None:
    folder = write(tmp_path / "4", QWEN3)
    newer = {key: value for key, value in QWEN3.items() if "rope" not in key}
    newer |= {"rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "layer_types": ["full_attention"] * 3}
    same = write(tmp_path / "5", newer)
    old, new = (write_graph(place, form="onnxruntime", head=YES_NO).model for place in (folder, same))
    assert old == new
    given = batches(QWEN3, LENGTHS)
    assert difference(expected(folder, given, YES_NO), expected(same, given, YES_NO)) == 0


@pytest.mark.parametrize(
    ("base", "key", "value", "message"),
    [
        (QWEN3, "rope_scaling", {"rope_type": "yarn", "factor": 4.0}, "'rope_scaling': {\"rope_type\": \"yarn\""),
        (QWEN3, "rope_parameters", {"rope_type": "linear", "factor": 2.0}, "'rope_type': \"linear\""),
        (QWEN3, "use_sliding_window", True, "'use_sliding_window': true"),
        (QWEN3, "layer_types", ["full_attention", "sliding_attention", "full_attention"], "windows of a decoder"),
        (QWEN3, "num_key_value_heads", 3, "which 3 heads of keys cannot share"),
        (QWEN3, "head_dim", 15, "heads of the size 15; rotary"),
        (QWEN3, "vocab_size", 9, "the head reads the token 9; the vocabulary in config.json has 9"),
        (QWEN3, "quantization_config", {"quant_method": "gptq"}, "'quantization_config'"),
        (QWEN2, "mlp_bias", True, "'mlp_bias' (true), which is not understood"),
        (DECODERS["gemma"], "hidden_activation", "gelu_pytorch_tanh", "'hidden_act' and 'hidden_activation', which do not"),
        (DECODERS["gemma"], "model_type", "gemma2", "the model type 'gemma2'"),
        (DECODERS["gemma"], "final_logit_softcapping", 30.0, "'final_logit_softcapping'"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(base: Config, key: str, value: Any, message: str) -> None:
    assert supports(base, YES_NO) == ""
    assert message in supports({**base, key: value}, YES_NO)


def test_a_head_must_be_the_kind_that_the_checkpoint_has() -> None:
    assert "a classifier of one label is in Qwen3ForSequenceClassification" in supports(QWEN3, LABEL)
    classifier = {**QWEN3, "architectures": ["Qwen3ForSequenceClassification"]}
    assert "a language model's head is in Qwen3ForCausalLM" in supports(classifier, YES_NO)


def test_an_encoder_has_no_prefix_to_share(tmp_path: Path) -> None:
    write(tmp_path, BERT)
    with pytest.raises(ZooError, match="only a decoder"):
        write_graph(tmp_path, form="onnxruntime", head=LABEL, shared_prefix=True)
