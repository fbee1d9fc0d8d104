"""What config.json may say: known values are written into the graph, everything else is refused by name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from direct_checkpoints import (
    BERT,
    CONFIGS,
    DEBERTA,
    DISTILBERT,
    ELECTRA,
    LABEL,
    MODERNBERT,
    QWEN3,
    ROBERTA,
    Config,
    misread,
    write,
)
from zoo.errors import ZooError
from zoo_direct.build import write_graph
from zoo_direct.families import supports

BGE_RERANKER_V2_M3: Config = {
    "_name_or_path": "BAAI/bge-m3", "architectures": ["XLMRobertaForSequenceClassification"], "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0, "classifier_dropout": None, "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 1024, "id2label": {"0": "LABEL_0"}, "initializer_range": 0.02, "intermediate_size": 4096,
    "label2id": {"LABEL_0": 0}, "layer_norm_eps": 1e-05, "max_position_embeddings": 8194, "model_type": "xlm-roberta",
    "num_attention_heads": 16, "num_hidden_layers": 24, "output_past": True, "pad_token_id": 1,
    "position_embedding_type": "absolute", "torch_dtype": "float32", "transformers_version": "4.38.1", "type_vocab_size": 1,
    "use_cache": True, "vocab_size": 250002,
}  # fmt: skip
"""As published."""
MINILM: Config = {
    "_name_or_path": "microsoft/MiniLM-L12-H384-uncased", "architectures": ["BertForSequenceClassification"],
    "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 384, "id2label": {"0": "LABEL_0"}, "initializer_range": 0.02, "intermediate_size": 1536,
    "label2id": {"LABEL_0": 0}, "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert",
    "num_attention_heads": 12, "num_hidden_layers": 6, "pad_token_id": 0, "position_embedding_type": "absolute",
    "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity", "transformers_version": "4.6.0",
    "type_vocab_size": 2, "use_cache": True, "vocab_size": 30522,
}  # fmt: skip
"""ms-marco-MiniLM-L6-v2's, with every key it has."""


@pytest.mark.parametrize("config", [BGE_RERANKER_V2_M3, MINILM, *CONFIGS.values()], ids=lambda c: c["model_type"])
def test_published_configurations_are_known(config: Config) -> None:
    assert supports(config, LABEL) == ""


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_key_that_nobody_knows_is_refused_by_name(config: Config) -> None:
    reason = supports({**config, "attention_temperature": 2.0}, LABEL)
    assert "'attention_temperature' (2.0)" in reason


REFUSED: list[tuple[Config, str, Any, str]] = [
    (BERT, "position_embedding_type", "relative_key", "'position_embedding_type': \"relative_key\"; only \"absolute\""),
    (BERT, "is_decoder", True, "'is_decoder': true; only false"),
    (BERT, "hidden_act", "gelu_10", "'hidden_act': \"gelu_10\""),
    (BERT, "pruned_heads", {"1": [0]}, "'pruned_heads'"),
    (BERT, "quantization_config", {"bits": 4}, "'quantization_config'"),
    (BERT, "auto_map", {"AutoModel": "modeling.Mine"}, "'auto_map'"),
    (BERT, "hidden_size", 43, "3 attention heads, which do not divide the width 43"),
    (BERT, "num_hidden_layers", 0, "'num_hidden_layers': 0; only an integer of at least 1"),
    (BERT, "num_hidden_layers", "3", "'num_hidden_layers': \"3\"; only an integer"),
    (BERT, "num_attention_heads", True, "'num_attention_heads': true"),
    (BERT, "layer_norm_eps", 0, "'layer_norm_eps': 0; only a number above 0"),
    (BERT, "layer_norm_eps", float("nan"), "'layer_norm_eps': NaN"),
    (BERT, "layer_norm_eps", 1e300, "'layer_norm_eps': 1e+300"),
    (BERT, "num_hidden_layers", None, "lacks the key 'num_hidden_layers'"),
    (BERT, "id2label", {"0": "A", "1": "B"}, "2 labels; a reranker has one"),
    (BERT, "num_labels", 3, "3 labels"),
    (BERT, "architectures", ["BertModel"], "['BertModel']; a classifier of one label is in BertForSequenceClassification"),
    (BERT, "architectures", ["BertForMaskedLM"], "BertForMaskedLM"),
    (BERT, "model_type", "big_bird", "the model type 'big_bird'; known are bert, "),
    (BERT, "model_type", ["bert"], "the model type '['bert']'"),
    (ROBERTA, "add_cross_attention", True, "'add_cross_attention': true"),
    (ELECTRA, "embedding_size", -20, "'embedding_size': -20"),
    (DISTILBERT, "activation", "mish", "'activation': \"mish\""),
    (DISTILBERT, "hidden_size", 42, "'hidden_size' (42), which is not understood"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "key", "value", "message"), REFUSED)
def test_arithmetic_that_is_not_known_is_refused_by_name(config: Config, key: str, value: Any, message: str) -> None:
    assert message in supports({**config, key: value}, LABEL)


def test_a_classifier_has_no_tokens_to_read() -> None:
    reason = supports(BERT, {"kind": "tokens", "positive": 5, "negative": None})
    assert "'bert' does not have a language model's head" in reason


@pytest.mark.parametrize(
    "head", [{}, {"kind": "labels"}, {"kind": "tokens"}, {"kind": "tokens", "positive": -1}, {"kind": "label", "positive": 1},
             {"kind": "tokens", "positive": 1, "neutral": 2}, {"kind": "tokens", "positive": 1, "negative": "no"}]
)  # fmt: skip
def test_a_head_that_cannot_be_meant_is_an_error(head: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match="is not known"):
        supports(BERT, head)


@pytest.mark.parametrize(
    ("base", "key"),
    [
        (BERT, "num_hidden_layers"),
        (BERT, "intermediate_size"),
        (MODERNBERT, "num_hidden_layers"),
        (MODERNBERT, "local_attention"),
        (MODERNBERT, "max_position_embeddings"),
        (DEBERTA, "max_relative_positions"),
        (QWEN3, "head_dim"),
        (QWEN3, "num_key_value_heads"),
    ],
)
def test_a_number_that_cannot_be_meant_is_no_reason_to_wait(tmp_path: Path, base: Config, key: str) -> None:
    """Nothing as large as the number is made: either it changes nothing, or it is refused."""
    head = LABEL if "Sequence" in base["architectures"][0] else {"kind": "tokens", "positive": 9, "negative": None}
    folder = misread(write(tmp_path / "c", base), base, {key: 10**12})
    with suppress(ZooError):
        write_graph(folder, form="standard", head=head)
