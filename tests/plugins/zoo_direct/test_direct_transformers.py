"""Every family and its variants against transformers: graphs and the numpy reading, on random models with perturbed parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from direct_checkpoints import LABEL, LENGTHS, Batch, batches, difference, open_session, run

from zoo_direct.build import FORMS, write_graph
from zoo_direct.proof import expected

pytestmark = [
    pytest.mark.export,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, when ModernBERT makes it import its compiler
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


def random_model(name: str, config: dict[str, Any], task: str = "ForSequenceClassification", seed: int = 0) -> Any:
    """A model of this class whose every parameter is random; gains of normalisations are around 1."""
    torch.manual_seed(seed)
    settings = getattr(transformers, f"{name}Config")(**config)
    model = getattr(transformers, f"{name}{task}")(settings).eval()
    for parameter, values in model.named_parameters():
        torch.nn.init.normal_(values, std=0.1)
        if "norm" in parameter.lower().rsplit(".", 2)[-2] and parameter.endswith("weight"):
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
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


def test_openvino_computes_the_standard_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    config = {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}
    model = random_model("XLMRoberta", config)
    model.save_pretrained(tmp_path)
    graph = write_graph(tmp_path, form="standard", head=LABEL)
    monkeypatch.chdir(tmp_path)
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(graph.model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for batch in batches(config):
        (wanted,) = torch_logits(model, [batch])
        np.testing.assert_allclose(compiled(batch)["logits"], wanted, atol=2e-6)


def test_a_session_takes_the_graph_as_bytes_with_the_weights_folder(tmp_path: Path) -> None:
    """ONNX Runtime 1.21 and later, without writing the graph down."""
    import onnxruntime

    config = {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}
    random_model("XLMRoberta", config).save_pretrained(tmp_path)
    graph = write_graph(tmp_path, form="onnxruntime", head=LABEL)
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tmp_path))
    session = onnxruntime.InferenceSession(graph.model, settings, providers=["CPUExecutionProvider"])
    given = batches(config)
    beside = open_session(graph.model, tmp_path)
    for batch in given:
        assert np.array_equal(session.run(None, batch)[0], beside.run(None, batch)[0])
