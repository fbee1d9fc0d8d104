"""Graphs written from a checkpoint give what the independent reading in numpy gives, and a graph that is wrong does not."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from direct_checkpoints import (
    BERT,
    CONFIGS,
    DECODERS,
    ELECTRA,
    LABEL,
    ROBERTA,
    Config,
    batches,
    difference,
    open_session,
    proof_batches,
    run,
    write,
)
from zoo.errors import ZooError
from zoo_direct.build import FORMS, write_graph
from zoo_direct.proof import expected
from zoo_direct.weights import Weights

pytestmark = [pytest.mark.lowest]

TOLERANCE = 1e-6
"""Of the largest logit: on models of this size float32 rounds by a third of it."""

VARIANTS: list[tuple[str, Config]] = [
    ("bert", {}),
    ("bert", {"hidden_act": "gelu_new"}),
    ("bert", {"hidden_act": "relu", "num_hidden_layers": 1}),
    ("bert", {"hidden_act": "silu", "type_vocab_size": 1}),
    ("bert", {"num_attention_heads": 1, "layer_norm_eps": 1e-12}),
    ("xlm-roberta", {}),
    ("xlm-roberta", {"pad_token_id": 3, "type_vocab_size": 2}),
    ("camembert", {"architectures": ["CamembertForSequenceClassification"]}),
    ("roberta", {"architectures": ["RobertaForSequenceClassification"], "hidden_act": "gelu_pytorch_tanh"}),
    ("electra", {}),
    ("electra", {"embedding_size": 42, "hidden_act": "gelu_fast"}),
    ("distilbert", {}),
    ("distilbert", {"activation": "relu", "n_layers": 1}),
    ("mpnet", {}),
    ("mpnet", {"pad_token_id": 0, "num_hidden_layers": 1}),
]


def checkpoint(folder: Path, kind: str, change: Config, **how: Any) -> tuple[Path, Config]:
    base = CONFIGS.get(kind, ROBERTA)
    config = {**base, "model_type": kind, **change}
    return write(folder, config, **how), config


@pytest.mark.parametrize(("kind", "change"), VARIANTS)
@pytest.mark.parametrize("form", FORMS)
def test_a_graph_gives_what_the_proof_gives(tmp_path: Path, kind: str, change: Config, form: str) -> None:
    folder, config = checkpoint(tmp_path, kind, change)
    given = batches(config)
    graph = write_graph(folder, form=form, head=LABEL)
    scores = run(graph.model, folder, given)
    assert difference(expected(folder, given, LABEL), scores) < TOLERANCE
    assert len({round(float(score), 4) for batch in scores for score in batch.ravel()}) == 9, "every row has its own"


@pytest.mark.parametrize("base", [*CONFIGS.values(), *DECODERS.values()], ids=lambda base: base["model_type"])
@pytest.mark.parametrize("seed", range(3))
def test_sizes_may_be_anything(tmp_path: Path, base: Config, seed: int) -> None:
    """Heads of 2 and of many, one layer and five, dense layers of one number."""
    random = np.random.default_rng(seed)
    heads, size = int(random.integers(1, 6)), 2 * int(random.integers(1, 12))
    groups = [count for count in range(1, heads + 1) if heads % count == 0]
    change = {
        "hidden_size": heads * size, "dim": heads * size, "pooler_hidden_size": heads * size, "num_attention_heads": heads,
        "n_heads": heads, "num_key_value_heads": int(random.choice(groups)), "head_dim": size,
        "intermediate_size": int(random.integers(1, 40)), "hidden_dim": int(random.integers(1, 40)),
        "num_hidden_layers": int(random.integers(1, 6)), "n_layers": int(random.integers(1, 6)),
        "vocab_size": int(random.integers(10, 50)), "embedding_size": int(random.integers(1, 30)),
    }  # fmt: skip
    config = {**base, **{key: value for key, value in change.items() if key in base}}
    head = LABEL if "Sequence" in base["architectures"][0] else {"kind": "tokens", "positive": 9, "negative": 4}
    folder, given = write(tmp_path, config), batches(config, [(1,), (9, 5), (40, 17)])
    logits = expected(folder, given, head)
    bound = TOLERANCE * (2 if "negative" in head else 1)  # a difference of two logits has the rounding of both
    for form in FORMS:
        graph = write_graph(folder, form=form, head=head)
        assert difference(logits, run(graph.model, folder, given)) < bound, form


@pytest.mark.parametrize(("dtype", "shards"), [("F16", 1), ("BF16", 1), ("F32", 3), ("BF16", 2), ("F8_E4M3", 1)])
@pytest.mark.parametrize("kind", ["xlm-roberta", "electra"])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_and_shards_are_read_where_they_lie(
    tmp_path: Path, kind: str, dtype: str, shards: int, form: str
) -> None:
    folder, config = checkpoint(tmp_path, kind, {}, dtype=dtype, shards=shards)
    given = batches(config)
    graph = write_graph(folder, form=form, head=LABEL)
    assert len(graph.borrowed) == shards
    assert len(graph.model) < 40_000, "no weight is in the graph"
    assert difference(expected(folder, given, LABEL), run(graph.model, folder, given)) < TOLERANCE


def test_what_is_padding_changes_no_score(tmp_path: Path) -> None:
    folder, config = checkpoint(tmp_path, "bert", {})
    graph = write_graph(folder, form="onnxruntime", head=LABEL)
    batch = batches(config, [(9, 4)])[0]
    alone = {name: array[1:, :4] for name, array in batch.items()}
    others = {**batch, "input_ids": np.where(batch["attention_mask"] == 1, batch["input_ids"], 77)}
    together, garbage, single = run(graph.model, folder, [batch, others, alone])
    assert np.array_equal(together, garbage)
    np.testing.assert_allclose(single[0], together[1], atol=1e-6)


def mutated(model: bytes, old: bytes, new: bytes) -> list[bytes]:
    """The model with each place of ``old`` changed, one at a time."""
    assert len(old) == len(new)
    parts = model.split(old)
    return [old.join(parts[: n + 1]) + new + old.join(parts[n + 1 :]) for n in range(len(parts) - 1)]


def float32(value: float) -> bytes:
    return struct.pack("<f", value)


SIZE = BERT["hidden_size"] // BERT["num_attention_heads"]
MUTATIONS = {
    "hidden keys are shown": (float32(-1e30), float32(0)),
    "the scale is off by one in a hundred": (float32(SIZE**-0.5), float32(1.01 * SIZE**-0.5)),
    "another epsilon": (float32(BERT["layer_norm_eps"]), float32(1e-12)),
    "the GELU of tanh": (b"none", b"tanh"),
    "another activation of the head": (b"\x22\x04Tanh", b"\x22\x04Relu"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_graph_that_is_wrong_fails_the_proof(tmp_path: Path, kind: str, mutation: str) -> None:
    folder, config = checkpoint(tmp_path, kind, {})
    given = proof_batches(folder, config)
    logits = expected(folder, given, LABEL)
    graph = write_graph(folder, form="onnxruntime", head=LABEL)
    wrong = mutated(graph.model, *MUTATIONS[mutation])
    assert wrong
    for model in wrong:
        assert difference(logits, run(model, folder, given)) > 5 * TOLERANCE


def test_distances_are_counted_past_the_last_bucket(tmp_path: Path) -> None:
    folder, config = checkpoint(tmp_path, "mpnet", {})
    given = batches(config, [(200, 7), (129,)])
    logits = expected(folder, given, LABEL)
    for form in FORMS:
        graph = write_graph(folder, form=form, head=LABEL)
        assert difference(logits, run(graph.model, folder, given)) < TOLERANCE, form


def test_positions_off_by_one_fail_the_proof(tmp_path: Path) -> None:
    folder, config = checkpoint(tmp_path, "xlm-roberta", {})
    given = proof_batches(folder, config)
    graph = write_graph(folder, form="onnxruntime", head=LABEL)
    name = "roberta.embeddings.position_embeddings.weight"
    row = 4 * config["hidden_size"]
    begin = Weights(folder).find(name).offset + config["pad_token_id"] * row
    (wrong,) = mutated(graph.model, b"offset\x12\x05%d" % begin, b"offset\x12\x05%d" % (begin - row))
    assert difference(expected(folder, given, LABEL), run(wrong, folder, given)) > 1e-3


@pytest.mark.parametrize("wrapper", ["module.", "model.", "module.model."])
def test_names_that_a_training_script_has_wrapped_are_found(tmp_path: Path, wrapper: str) -> None:
    folder, config = checkpoint(tmp_path, "xlm-roberta", {}, rename=lambda name: wrapper + name)
    given = batches(config)
    graph = write_graph(folder, form="onnxruntime", head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, folder, given)) < TOLERANCE


def test_names_of_berts_first_checkpoints_are_found(tmp_path: Path) -> None:
    def old(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    folder, config = checkpoint(tmp_path, "bert", {}, rename=old)
    given = batches(config)
    graph = write_graph(folder, form="onnxruntime", head=LABEL)
    assert difference(expected(folder, given, LABEL), run(graph.model, folder, given)) < TOLERANCE


def test_tensors_that_no_score_needs_are_a_note(tmp_path: Path) -> None:
    extra = {
        "roberta.pooler.dense.weight": (42, 42),
        "roberta.embeddings.position_ids": (1, 60),
        "lm_head.dense.bias": (42,),
        "lm_head.decoder.weight": (101, 42),
    }
    folder, _ = checkpoint(tmp_path, "xlm-roberta", {}, extra=extra)
    note = write_graph(folder, form="onnxruntime", head=LABEL).note
    assert all(name in note for name in extra)


@pytest.mark.parametrize("extra", ["roberta.encoder.layer.3.output.dense.weight", "adapter.up.weight"])
def test_other_tensors_that_nobody_reads_are_refused(tmp_path: Path, extra: str) -> None:
    folder, _ = checkpoint(tmp_path, "xlm-roberta", {}, extra={extra: (42, 42)})
    with pytest.raises(ZooError, match=f"{extra}.*not of the same model"):
        write_graph(folder, form="onnxruntime", head=LABEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 4}, r"lack 'roberta\.encoder\.layer\.3\..*'"),
        ({"num_hidden_layers": 2}, r"hold roberta\.encoder\.layer\.2\."),
        ({"intermediate_size": 38}, r"has the shape \[37, 42\]; config.json asks for \[38, 42\]"),
        ({"vocab_size": 100}, r"word_embeddings.weight' in .* has the shape \[101, 42\]"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path: Path, change: Config, message: str) -> None:
    folder, config = checkpoint(tmp_path, "xlm-roberta", {})
    (folder / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(ZooError, match=message):
        write_graph(folder, form="onnxruntime", head=LABEL)


def test_a_classifier_that_is_not_a_rerankers_is_refused_by_its_shape(tmp_path: Path) -> None:
    folder, _ = checkpoint(tmp_path, "bert", {}, extra={"classifier.weight": (3, 42), "classifier.bias": (3,)})
    with pytest.raises(ZooError, match=r"'classifier.weight' .* \[3, 42\]; config.json asks for \[1, 42\]"):
        write_graph(folder, form="onnxruntime", head=LABEL)


def test_the_caller_says_by_which_names_weights_are_found(tmp_path: Path) -> None:
    """In a snapshot of the hub, a weights file is a link to a blob: the graph can name the blob, and be opened beside it."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    source, config = checkpoint(tmp_path / "made", "electra", {}, shards=2)
    blobs.mkdir()
    snapshot.mkdir()
    for number, file in enumerate(sorted(source.iterdir())):
        file.rename(blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(blobs / f"{number:040x}")
    graph = write_graph(snapshot, form="onnxruntime", head=LABEL, locations=lambda file: Path(file).resolve().name)
    given = batches(config)
    assert difference(expected(snapshot, given, LABEL), run(graph.model, blobs, given)) < TOLERANCE
    assert [path.parent for path in graph.borrowed] == [snapshot, snapshot]


def test_only_the_types_that_a_model_has_are_an_input(tmp_path: Path) -> None:
    names = {}
    for kind, change in (("bert", {}), ("bert", {"type_vocab_size": 1}), ("xlm-roberta", {}), ("distilbert", {})):
        folder, config = checkpoint(tmp_path / f"{kind}{len(names)}", kind, change)
        session = open_session(write_graph(folder, form="onnxruntime", head=LABEL).model, folder)
        names[kind, config.get("type_vocab_size", 0)] = {node.name for node in session.get_inputs()}
    assert names.pop(("bert", 2)) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(given == {"input_ids", "attention_mask"} for given in names.values())


@pytest.mark.parametrize("base", [BERT, ROBERTA, ELECTRA], ids=lambda base: base["model_type"])
def test_texts_longer_than_the_model_fail_rather_than_score(tmp_path: Path, base: Config) -> None:
    folder = write(tmp_path, base)
    graph = write_graph(folder, form="onnxruntime", head=LABEL)
    with pytest.raises(Exception, match=r"(?i)broadcast|out of|bounds"):
        run(graph.model, folder, batches(base, [(61,)]))
