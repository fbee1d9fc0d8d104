"""Every family and its variants against transformers: graphs and the numpy reading, on random models with perturbed parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from direct_checkpoints import LABEL, LENGTHS, Batch, batches, difference, open_session, run
from zoo.api import onnxruntime_settings, open_onnxruntime
from zoo_direct.build import FORMS, write_graph
from zoo_direct.proof import expected

pytestmark = [
    pytest.mark.export,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning"
    ),  # torch's own, when ModernBERT makes it import its compiler
]

torch = pytest.importorskip("torch", reason="the export extra is not installed")
transformers = pytest.importorskip("transformers", reason="the export extra is not installed")

TOLERANCE = 1e-6
"""Of the largest logit."""

SMALL = {
    "vocab_size": 101,
    "hidden_size": 42,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "max_position_embeddings": 60,
    "num_labels": 1,
}
DISTIL = {
    "vocab_size": 101,
    "dim": 42,
    "n_layers": 3,
    "n_heads": 3,
    "hidden_dim": 37,
    "max_position_embeddings": 60,
    "num_labels": 1,
}
ENCODERS: list[tuple[str, dict[str, Any]]] = [
    ("Bert", SMALL),
    ("Bert", {**SMALL, "hidden_act": "gelu_new", "layer_norm_eps": 0.01}),
    ("Bert", {**SMALL, "hidden_act": "silu", "num_attention_heads": 1}),
    ("XLMRoberta", {**SMALL, "type_vocab_size": 1, "pad_token_id": 1}),
    ("XLMRoberta", {**SMALL, "type_vocab_size": 2, "pad_token_id": 4, "num_hidden_layers": 1}),
    ("Roberta", {**SMALL, "pad_token_id": 1, "hidden_act": "gelu_pytorch_tanh"}),
    ("Camembert", {**SMALL, "type_vocab_size": 1, "pad_token_id": 1, "hidden_act": "relu"}),
    ("Electra", {**SMALL, "embedding_size": 20}),
    ("Electra", {**SMALL, "embedding_size": 42, "hidden_act": "gelu_fast", "layer_norm_eps": 0.01}),
    ("MPNet", {**SMALL, "pad_token_id": 1}),
    ("MPNet", {**SMALL, "pad_token_id": 0, "num_hidden_layers": 1, "layer_norm_eps": 0.01, "hidden_act": "relu"}),
    ("DistilBert", DISTIL),
    ("DistilBert", {**DISTIL, "activation": "relu", "sinusoidal_pos_embds": True}),
]  # fmt: skip


MODERN = {
    **SMALL,
    "hidden_size": 48,
    "local_attention": 16,
    "norm_eps": 0.01,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
MODERNBERTS: list[dict[str, Any]] = [
    {},
    {"classifier_pooling": "mean", "local_attention": 15},
    {"num_hidden_layers": 4, "norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
    {"global_attn_every_n_layers": 2, "local_rope_theta": None, "num_hidden_layers": 2, "hidden_activation": "silu"},
    {"local_attention": 128, "global_rope_theta": 5000.0, "classifier_activation": "relu"},
]


DEBERTA = {
    **SMALL,
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DEBERTAS: list[dict[str, Any]] = [
    {},
    {"pos_att_type": ["c2p"], "layer_norm_eps": 0.01},
    {"pos_att_type": "p2c", "share_att_key": False},
    {"share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1},
    {"max_relative_positions": 12, "position_buckets": -1, "num_hidden_layers": 1},
    {"relative_attention": False},
    {"conv_kernel_size": 3, "conv_act": "gelu"},
    {"conv_kernel_size": 5, "conv_groups": 3, "num_hidden_layers": 1},
    {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 20, "max_position_embeddings": 128},
    {"position_buckets": 32, "max_relative_positions": 50, "pooler_hidden_act": "tanh", "hidden_act": "relu"},
]
CAUSAL = {
    "vocab_size": 101,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "rms_norm_eps": 0.01,
    "max_position_embeddings": 300,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
YES_NO = {"kind": "tokens", "positive": 9, "negative": 4}
YES = {"kind": "tokens", "positive": 100, "negative": None}
DECODERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}, YES_NO),
    ("Qwen3", {"head_dim": 10, "attention_bias": True, "rope_theta": 1e6}, YES),
    ("Qwen3", {"head_dim": 8}, LABEL),
    ("Qwen2", {"num_key_value_heads": 4}, YES_NO),
    ("Qwen2", {"num_key_value_heads": 1, "tie_word_embeddings": True, "hidden_act": "gelu"}, YES),
    ("Qwen2", {}, LABEL),
    ("Gemma", {"head_dim": 16, "num_key_value_heads": 1}, YES),
    ("Gemma", {"head_dim": 12, "hidden_act": "gelu", "attention_bias": True, "tie_word_embeddings": False}, YES_NO),
    ("Gemma", {"head_dim": 8}, LABEL),
]


def random_model(name: str, config: dict[str, Any], task: str = "ForSequenceClassification", seed: int = 0) -> Any:
    """A model of this class whose every parameter is random; normalisations multiply with about 1, which Gemma's add by themselves."""
    torch.manual_seed(seed)
    settings = getattr(transformers, f"{name}Config")(**config)
    model = getattr(transformers, f"{name}{task}")(settings).eval()
    for parameter, values in model.named_parameters():
        torch.nn.init.normal_(values, std=0.1)
        gain = "norm" in parameter.lower().split(".")[-2] and parameter.endswith("weight")
        if gain and name != "Gemma":
            values.data += 1
    return model


def torch_logits(model: Any, given: Sequence[Batch]) -> list[Any]:
    """What transformers gives, as float32 arrays."""
    with torch.inference_mode():
        outputs = [model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits for batch in given]
    return [output.numpy().astype(np.float32) for output in outputs]


@pytest.mark.parametrize(("name", "config"), ENCODERS)
def test_an_encoder_scores_as_in_transformers(tmp_path: Path, name: str, config: dict[str, Any]) -> None:
    model = random_model(name, config)
    model.save_pretrained(tmp_path)
    types = model.config.type_vocab_size if name in ("Bert", "Electra") else 0
    given = batches({**config, "pad_token_id": model.config.pad_token_id, "type_vocab_size": types}, LENGTHS)
    wanted = torch_logits(model, given)
    assert difference(wanted, expected(tmp_path, given, LABEL)) < TOLERANCE
    for form in FORMS:
        graph = write_graph(tmp_path, form=form, head=LABEL)
        assert difference(wanted, run(graph.model, tmp_path, given)) < TOLERANCE, form


@pytest.mark.parametrize("change", MODERNBERTS, ids=str)
def test_modernbert_scores_as_in_transformers(tmp_path: Path, change: dict[str, Any]) -> None:
    config = {**MODERN, **change}
    model = random_model("ModernBert", config)
    model.save_pretrained(tmp_path)
    given = batches(config, [(1,), (8, 9), (17, 16), (60, 3, 25), (200, 40)])
    wanted = torch_logits(model, given)
    assert difference(wanted, expected(tmp_path, given, LABEL)) < TOLERANCE
    for form in FORMS:
        graph = write_graph(tmp_path, form=form, head=LABEL)
        assert difference(wanted, run(graph.model, tmp_path, given)) < TOLERANCE, form


@pytest.mark.parametrize("change", DEBERTAS, ids=str)
def test_deberta_scores_as_in_transformers(tmp_path: Path, change: dict[str, Any]) -> None:
    config = {**DEBERTA, **change}
    model = random_model("DebertaV2", config)
    model.save_pretrained(tmp_path)
    given = batches(config, [(1,), (2,), (7,), (9, 5, 1), (30, 30), (57, 3, 20), (100, 71)])
    wanted = torch_logits(model, given)
    assert difference(wanted, expected(tmp_path, given, LABEL)) < TOLERANCE
    for form in FORMS:
        graph = write_graph(tmp_path, form=form, head=LABEL)
        assert difference(wanted, run(graph.model, tmp_path, given)) < TOLERANCE, form


@pytest.mark.parametrize(("buckets", "furthest"), [(256, 512), (16, 64), (32, 50), (320, 1000), (5, 9)])
def test_distances_fall_into_the_buckets_of_transformers(buckets: int, furthest: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    from zoo_direct.families.relative import deberta_bucket

    distances = list(range(-furthest - 50, furthest + 51))
    wanted = make_log_bucket_position(torch.tensor(distances), buckets, furthest).to(torch.long).tolist()
    assert [deberta_bucket(distance, buckets, furthest) for distance in distances] == wanted


def test_distances_fall_into_the_buckets_of_mpnet() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    from zoo_direct.families.relative import mpnet_bucket

    distances = list(range(-300, 301))
    wanted = MPNetEncoder.relative_position_bucket(torch.tensor(distances), num_buckets=32).tolist()
    assert [mpnet_bucket(distance, 32, 128) for distance in distances] == wanted


def left_padded(model: Any, batch: Batch, head: dict[str, Any]) -> Any:
    """What the published recipes compute: rows padded on the left, positions from the mask, logits of the last place."""
    ids, mask = np.zeros_like(batch["input_ids"]), np.zeros_like(batch["attention_mask"])
    for row, count in enumerate(batch["attention_mask"].sum(1)):
        ids[row, len(ids[row]) - count :] = batch["input_ids"][row, :count]
        mask[row, len(ids[row]) - count :] = 1
    places = np.maximum(mask.cumsum(1) - 1, 0)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits.numpy()
    if head == LABEL:
        return logits
    last = logits[:, -1]
    no = 0 if head["negative"] is None else last[:, head["negative"]]
    return (last[:, head["positive"]] - no)[:, None]


@pytest.mark.parametrize(("name", "change", "head"), DECODERS)
def test_a_decoder_scores_as_in_transformers(
    tmp_path: Path, name: str, change: dict[str, Any], head: dict[str, Any]
) -> None:
    config = {**CAUSAL, **change, **({"num_labels": 1} if head == LABEL else {})}
    model = random_model(name, config, "ForSequenceClassification" if head == LABEL else "ForCausalLM")
    model.save_pretrained(tmp_path)
    given = batches(config, [(1,), (7,), (9, 5, 1), (30, 30), (57, 3, 20), (200,)])
    wanted = [left_padded(model, batch, head) for batch in given]
    assert difference(wanted, expected(tmp_path, given, head)) < TOLERANCE
    for form in FORMS:
        graph = write_graph(tmp_path, form=form, head=head)
        assert difference(wanted, run(graph.model, tmp_path, given)) < TOLERANCE, form


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn"])
def test_weights_that_transformers_stores_in_half_precision_and_shards(tmp_path: Path, dtype: str) -> None:
    model = random_model("XLMRoberta", {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    given = batches({**SMALL, "pad_token_id": 1})
    wanted = torch_logits(model.float(), given)
    for form in FORMS:
        graph = write_graph(tmp_path, form=form, head=LABEL)
        assert difference(wanted, run(graph.model, tmp_path, given)) < TOLERANCE, form


@pytest.mark.parametrize("form", FORMS)
def test_graphs_are_valid_onnx(tmp_path: Path, form: str) -> None:
    """Checked by onnx itself, with shapes inferred where all operators are standard ones."""
    onnx = pytest.importorskip("onnx")
    random_model("Electra", {**SMALL, "embedding_size": 20}).save_pretrained(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(write_graph(tmp_path, form=form, head=LABEL).model)
    onnx.checker.check_model(str(path), full_check=form != "onnxruntime")
    domains = {node.domain for node in onnx.load(path, load_external_data=False).graph.node}
    assert domains == ({"", "com.microsoft"} if form == "onnxruntime" else {""})


def test_a_session_takes_the_graph_as_bytes_with_the_weights_folder(tmp_path: Path) -> None:
    """ONNX Runtime 1.21 and later, without writing the graph down."""
    config = {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}
    random_model("XLMRoberta", config).save_pretrained(tmp_path)
    graph = write_graph(tmp_path, form="onnxruntime", head=LABEL)
    session = open_onnxruntime(graph.model, onnxruntime_settings(1, join_int8=False), tmp_path)
    given = batches(config)
    beside = open_session(graph.model, tmp_path)
    for batch in given:
        assert np.array_equal(session.run(None, batch)[0], beside.run(None, batch)[0])
