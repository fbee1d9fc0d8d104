"""Alibaba's ``new``: rotary positions with and without scaling, joined and separate projections, and no code from the repository."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from direct_checkpoints import GTE_NEW, LABEL, Config, batches, difference, misread, proof_batches, run, write
from zoo_direct.build import FORMS, write_graph
from zoo_direct.families import supports
from zoo_direct.proof import expected
from zoo_direct.weights import Weights

pytestmark = [pytest.mark.lowest]

TOLERANCE = 1e-6
"""Of the largest logit."""
LENGTHS = ((1,), (2,), (7,), (9, 5, 1), (30, 30), (57, 3, 20), (200, 71))
VARIANTS: list[Config] = [
    {},
    {"rope_scaling": None, "rope_theta": 500000, "type_vocab_size": 2},
    {"rope_scaling": {"type": "ntk", "factor": 2.5, "mixed_b": 0.625}, "type_vocab_size": 0},
    {"pack_qkv": False, "num_hidden_layers": 1, "hidden_act": "gelu_new"},
]


@pytest.mark.parametrize("change", VARIANTS, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_a_graph_gives_what_the_proof_gives(tmp_path: Path, change: Config, form: str, dtype: str) -> None:
    config = {**GTE_NEW, **change}
    folder, given = write(tmp_path, config, dtype=dtype), batches(config, LENGTHS)
    graph = write_graph(folder, form=form, head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, folder, given)) < TOLERANCE


@pytest.mark.export
@pytest.mark.parametrize("change", VARIANTS, ids=str)
def test_a_forward_pass_in_torch_gives_the_same(tmp_path: Path, change: Config) -> None:
    """transformers has no such model, so this is a third reading: torch's own functions, padded rows, turns as complex numbers."""
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    config = {**GTE_NEW, **change}
    folder, given = write(tmp_path, config), batches(config, LENGTHS)
    weights, memory = Weights(folder), (folder / "model.safetensors").read_bytes()

    def get(name: str) -> Any:
        tensor = weights.find(name)
        count = math.prod(tensor.shape)
        return torch.frombuffer(bytearray(memory), dtype=torch.float32, count=count, offset=tensor.offset).view(
            tensor.shape
        )

    with torch.inference_mode():
        wanted = [_torch_forward(get, config, batch).numpy() for batch in given]
    assert difference(wanted, expected(folder, given, LABEL)) < TOLERANCE
    for form in FORMS:
        graph = write_graph(folder, form=form, head=LABEL)
        assert difference(wanted, run(graph.model, folder, given)) < TOLERANCE, form


def _torch_forward(get: Callable[[str], Any], config: Config, batch: dict[str, Any]) -> Any:
    import torch
    from torch.nn import functional

    ids, mask = torch.from_numpy(batch["input_ids"]), torch.from_numpy(batch["attention_mask"])
    width, heads, eps = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]

    def linear(x: Any, name: str, *, bias: bool = True) -> Any:
        return functional.linear(x, get(f"{name}.weight"), get(f"{name}.bias") if bias else None)

    def norm(x: Any, name: str) -> Any:
        return functional.layer_norm(x, [width], get(f"{name}.weight"), get(f"{name}.bias"), eps)

    x = functional.embedding(ids, get("new.embeddings.word_embeddings.weight"))
    if config["type_vocab_size"]:
        types = torch.from_numpy(batch.get("token_type_ids", 0 * batch["input_ids"]))
        x = x + functional.embedding(types, get("new.embeddings.token_type_embeddings.weight"))
    x = norm(x, "new.embeddings.LayerNorm")
    turns = torch.polar(torch.ones(()), torch.arange(ids.shape[1])[:, None].float() * _torch_frequencies(config))
    for number in range(config["num_hidden_layers"]):
        layer = f"new.encoder.layer.{number}"
        if config["pack_qkv"]:
            q, k, v = linear(x, f"{layer}.attention.qkv_proj").chunk(3, -1)
        else:
            q, k, v = (linear(x, f"{layer}.attention.{part}_proj") for part in "qkv")
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
        q, k = (_turned(part, turns) for part in (q, k))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None].bool())
        x = norm(x + linear(mixed.transpose(1, 2).flatten(2), f"{layer}.attention.o_proj"), f"{layer}.attn_ln")
        up, gate = linear(x, f"{layer}.mlp.up_gate_proj", bias=False).chunk(2, -1)
        gate = functional.gelu(gate, approximate="tanh" if config["hidden_act"] == "gelu_new" else "none")
        x = norm(x + linear(gate * up, f"{layer}.mlp.down_proj"), f"{layer}.mlp_ln")
    return linear(torch.tanh(linear(x[:, 0], "new.pooler.dense")), "classifier")


def _torch_frequencies(config: Config) -> Any:
    """https://kexue.fm/archives/9706, equations 6 and 10 to 13, in float64."""
    import torch

    size = config["hidden_size"] // config["num_attention_heads"]
    pairs, scaling = torch.arange(size // 2, dtype=torch.float64), config["rope_scaling"] or {"factor": 1.0}
    factor, mixed = scaling["factor"], scaling.get("mixed_b")
    if mixed is None:
        return ((config["rope_theta"] * factor) ** (-2 * pairs / size) / factor ** (2 / size)).float()
    slope = math.log(factor) / (size / 2) ** mixed
    return (config["rope_theta"] ** (-2 * pairs / size) / torch.exp(slope * (pairs + 1) ** mixed)).float()


def _turned(x: Any, turns: Any) -> Any:
    import torch

    first, second = x.chunk(2, -1)
    y = torch.complex(first.contiguous(), second.contiguous()) * turns
    return torch.cat([y.real, y.imag], -1)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": None},
        {"rope_scaling": {"type": "ntk", "factor": 4.0}},
        {"rope_theta": 10000},
        {"layer_norm_eps": 1e-12},
        {"hidden_act": "gelu_new"},
    ],
    ids=str,
)
def test_a_misread_configuration_fails_the_proof(tmp_path: Path, change: Config) -> None:
    folder = write(tmp_path / "right", GTE_NEW)
    given = proof_batches(folder, GTE_NEW)
    wrong = misread(folder, GTE_NEW, change)
    graph = write_graph(wrong, form="onnxruntime", head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, wrong, given)) > 5 * TOLERANCE


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("position_embedding_type", "absolute", '\'position_embedding_type\': "absolute"; only "rope"'),
        ("layer_norm_type", "rms_norm", "'layer_norm_type': \"rms_norm\""),
        ("logn_attention_scale", True, "'logn_attention_scale': true"),
        ("rope_scaling", {"type": "dynamic", "factor": 2.0}, "'type': \"dynamic\""),
        ("rope_scaling", {"type": "ntk"}, "lacks the key 'factor'"),
        ("rope_scaling", {"type": "ntk", "factor": 0.5}, "the factor 0.5"),
        ("rope_scaling", {"type": "ntk", "factor": 2.0, "low_freq": 1}, "'low_freq' (1)"),
        ("architectures", ["NewModel"], "NewForSequenceClassification"),
    ],
)
def test_what_is_not_known_is_refused_by_name(key: str, value: Any, message: str) -> None:
    assert message in supports({**GTE_NEW, key: value}, LABEL)
