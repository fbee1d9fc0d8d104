"""ModernBERT: windows in blocks and with a mask, both poolings, and the configuration files of transformers 4 and 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from direct_checkpoints import LABEL, MODERNBERT, Config, batches, difference, misread, proof_batches, run, write
from zoo_direct.build import FORMS, write_graph
from zoo_direct.families import supports
from zoo_direct.proof import expected

pytestmark = [pytest.mark.lowest]

TOLERANCE = 1e-6
"""Of the largest logit."""
REACH = MODERNBERT["local_attention"] // 2
LENGTHS = (
    (1,),
    (REACH,),
    (REACH + 1,),
    (2 * REACH, 3),
    (2 * REACH + 1, 2 * REACH),
    (30, 30),
    (57, 3, 20),
    (200, 9),
)
"""On both sides of a block's border, and past several."""
BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
VARIANTS: list[Config] = [
    {},
    {"classifier_pooling": "mean"},
    {"num_hidden_layers": 4, **BIASES},
    {"num_hidden_layers": 4, "classifier_pooling": "mean", **BIASES},
    {"num_hidden_layers": 1},
    {"num_hidden_layers": 2, "local_attention": 15, "hidden_activation": "silu", "classifier_activation": "relu"},
    {"global_attn_every_n_layers": 1, "local_rope_theta": None},
    {"global_attn_every_n_layers": 2, "local_rope_theta": None},
    {"local_attention": 1},
    {"local_attention": 128},
    {"local_attention": 10**6},
]


@pytest.mark.parametrize("change", VARIANTS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_graph_gives_what_the_proof_gives(tmp_path: Path, change: Config, form: str) -> None:
    config = {**MODERNBERT, **change}
    folder, given = write(tmp_path, config), batches(config, LENGTHS)
    graph = write_graph(folder, form=form, head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, folder, given)) < TOLERANCE


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("form", FORMS)
def test_slices_of_joined_matrices_in_half_precision(tmp_path: Path, dtype: str, form: str) -> None:
    config = {**MODERNBERT, **BIASES}
    folder, given = write(tmp_path, config, dtype=dtype, shards=2), batches(config, LENGTHS)
    graph = write_graph(folder, form=form, head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, folder, given)) < TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"global_rope_theta": 10000.0},
        {"local_rope_theta": 160000.0},
        {"norm_eps": 1e-5, "layer_norm_eps": 1e-5},
        {"local_attention": 18},
        {"local_attention": 14},
        {"global_attn_every_n_layers": 2},
        {"classifier_pooling": "mean"},
        {"hidden_activation": "gelu_pytorch_tanh"},
        {"classifier_activation": "gelu_pytorch_tanh"},
        {"num_attention_heads": 1},
    ],
    ids=str,
)
def test_a_misread_configuration_fails_the_proof(tmp_path: Path, change: Config) -> None:
    folder = write(tmp_path / "right", MODERNBERT)
    given = proof_batches(folder, MODERNBERT)
    wrong = misread(folder, MODERNBERT, change)
    graph = write_graph(wrong, form="onnxruntime", head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, wrong, given)) > 5 * TOLERANCE


def test_a_window_longer_than_other_proofs_is_proven_too(tmp_path: Path) -> None:
    wide = {**MODERNBERT, "local_attention": 300}
    folder = write(tmp_path / "right", wide)
    given = proof_batches(folder, wide)
    wrong = misread(folder, wide, {"local_attention": 304})
    graph = write_graph(wrong, form="onnxruntime", head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, wrong, given)) > 5 * TOLERANCE


def test_no_configuration_makes_a_proof_that_has_no_end(tmp_path: Path) -> None:
    wide = {**MODERNBERT, "local_attention": 10**6, "max_position_embeddings": 10**6}
    given = proof_batches(write(tmp_path, wide), wide)
    assert max(batch["input_ids"].shape[1] for batch in given) == 2048


def test_blocks_that_show_what_is_out_of_reach_fail_the_proof(tmp_path: Path) -> None:
    folder = write(tmp_path, MODERNBERT)
    given = proof_batches(folder, MODERNBERT)
    hidden, shown = np.full(2, -1e30, "<f4").tobytes(), np.zeros(2, "<f4").tobytes()
    model = write_graph(folder, form="onnxruntime", head=LABEL).model
    wrong = model.replace(hidden, shown)  # two side by side stand in the table of what a block may see alone
    assert wrong != model
    assert difference(expected(folder, given, LABEL), run(wrong, folder, given)) > 5 * TOLERANCE


def test_files_of_transformers_5_say_the_same_in_other_words(tmp_path: Path) -> None:
    config = {**MODERNBERT, "global_rope_theta": 20000.0, "local_rope_theta": 500.0}
    folder, given = write(tmp_path / "4", config), batches(MODERNBERT, LENGTHS)
    newer = {key: value for key, value in config.items() if "theta" not in key and "every_n" not in key}
    newer["layer_types"] = ["full_attention", "sliding_attention", "sliding_attention"]
    newer["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": 20000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    }
    same = write(tmp_path / "5", newer)
    old, new = (write_graph(place, form="onnxruntime", head=LABEL).model for place in (folder, same))
    assert old == new
    assert difference(expected(folder, given, LABEL), expected(same, given, LABEL)) == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classifier_pooling", "max", "'classifier_pooling': \"max\"; only 'cls' or 'mean'"),
        ("rope_scaling", {"type": "linear", "factor": 2}, "'rope_scaling'"),
        ("rope_parameters", {"full_attention": {"rope_type": "yarn"}}, "'rope_type': \"yarn\""),
        ("rope_parameters", {"full_attention": {"factor": 2.0}}, "'factor' (2.0)"),
        ("rope_parameters", {"chunked_attention": {}}, "'chunked_attention'"),
        ("layer_types", ["full_attention"] * 2, "'layer_types' that are not 3"),
        ("layer_types", ["full_attention", "chunked_attention", "full_attention"], "'layer_types'"),
        ("num_attention_heads", 14, "heads of the size 3; rotary positions want an even one"),
        ("layer_norm_eps", 1e-3, "'layer_norm_eps': 0.001; only 0.01"),
        ("norm_type", "rms", "'norm_type'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(key: str, value: Any, message: str) -> None:
    assert message in supports({**MODERNBERT, key: value}, LABEL)
