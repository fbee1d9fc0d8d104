"""DeBERTa-v2 and -v3: scores by distance, in both directions, in buckets or not, and the convolution of the large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from direct_checkpoints import DEBERTA, LABEL, Config, batches, difference, misread, proof_batches, run, write
from zoo_direct.build import FORMS, write_graph
from zoo_direct.families import supports
from zoo_direct.proof import expected

pytestmark = [pytest.mark.lowest]

TOLERANCE = 1e-6
"""Of the largest logit."""
LENGTHS = ((1,), (2,), (7,), (9, 5, 1), (30, 30), (57, 3, 20), (100, 71))
"""The last ones are past the furthest distance that has a bucket of its own."""
VARIANTS: list[Config] = [
    {},
    {"pos_att_type": ["c2p"]},
    {"pos_att_type": ["p2c"], "share_att_key": False},
    {"share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1},
    {"max_relative_positions": 12, "position_buckets": -1, "num_hidden_layers": 1},
    {"relative_attention": False, "norm_rel_ebd": "none"},
    {"conv_kernel_size": 3, "conv_act": "gelu"},
    {"conv_kernel_size": 5, "conv_groups": 3, "num_hidden_layers": 1},
    {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 20, "max_position_embeddings": 128},
    {"position_buckets": 32, "max_relative_positions": 50, "pooler_hidden_act": "tanh", "hidden_act": "relu"},
]


@pytest.mark.parametrize("change", VARIANTS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_graph_gives_what_the_proof_gives(tmp_path: Path, change: Config, form: str) -> None:
    config = {**DEBERTA, **change}
    folder, given = write(tmp_path, config), batches(config, LENGTHS)
    graph = write_graph(folder, form=form, head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, folder, given)) < TOLERANCE


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_is_read_where_it_lies(tmp_path: Path, dtype: str) -> None:
    config = {
        **DEBERTA,
        "conv_kernel_size": 3,
        "type_vocab_size": 2,
        "position_biased_input": True,
        "max_position_embeddings": 100,
    }
    folder, given = write(tmp_path, config, dtype=dtype, shards=2), batches(config, LENGTHS)
    logits = expected(folder, given, LABEL)
    for form in FORMS:
        graph = write_graph(folder, form=form, head=LABEL)
        assert difference(logits, run(graph.model, folder, given)) < TOLERANCE, form


@pytest.mark.parametrize(
    "change",
    [
        {"max_relative_positions": 63},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"]},
        {"norm_rel_ebd": "none"},
        {"layer_norm_eps": 1e-7},
        {"pooler_hidden_act": "gelu_new"},
        {"num_attention_heads": 1},
    ],
    ids=str,
)
def test_a_misread_configuration_fails_the_proof(tmp_path: Path, change: Config) -> None:
    folder = write(tmp_path / "right", DEBERTA)
    given = proof_batches(folder, DEBERTA)
    wrong = misread(folder, DEBERTA, change)
    graph = write_graph(wrong, form="onnxruntime", head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, wrong, given)) > 5 * TOLERANCE


def test_tables_that_the_configuration_leaves_unread_are_a_note(tmp_path: Path) -> None:
    """As in checkpoints of DeBERTa-v3's pretraining, which transformers reads the same way."""
    extra = {
        "deberta.embeddings.position_embeddings.weight": (512, 42),
        "mask_predictions.dense.weight": (42, 42),
        "lm_predictions.lm_head.bias": (101,),
    }
    write(tmp_path, DEBERTA, extra=extra)
    note = write_graph(tmp_path, form="onnxruntime", head=LABEL).note
    assert all(name in note for name in extra)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pos_att_type", "p2c|c2p|p2p", "'pos_att_type' with 'p2p'"),
        ("position_buckets", 1, "'position_buckets': 1, which do not reach"),
        ("position_buckets", 256, "'position_buckets': 256, which do not reach up to 64"),
        ("conv_kernel_size", 4, "'conv_kernel_size': 4; only an odd one"),
        ("attention_head_size", 10, "'attention_head_size': 10; only 14"),
        ("pooler_hidden_size", 21, "'pooler_hidden_size': 21; only 42"),
        ("talking_head", True, "'talking_head'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(key: str, value: Any, message: str) -> None:
    assert message in supports({**DEBERTA, key: value}, LABEL)
