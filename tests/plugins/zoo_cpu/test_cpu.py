"""Scores on the CPU equal transformers', whatever the family, the length and the batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import Zoo
from random_checkpoints import bert_folder, torch_export
from zoo.errors import PluginError, ScoreError, ZooError
from zoo.registry.stages import Pipeline
from zoo.scoring.batching import Features, batches, wanted_inputs
from zoo.scoring.scorer import Scorer
from zoo.types import Artifact, Encoding, Encodings, Pair, SessionOptions, ShapeRule, Tensors
from zoo_cpu.device import CpuDevice

pytestmark = [pytest.mark.export]

TOLERANCE = 1e-4
"""Largest difference from transformers' float32 logits: the two sum in different orders."""

PAIRS = [
    ("what is panda?", "hi"),
    ("what is panda?", "the giant panda is a bear " * 3),
    ("熊猫", "中国 panda " * 40),
    ("", ""),
    ("bears", "what the panda eats " * 200),
]


@pytest.fixture(scope="module", params=["xlm-roberta", "bert"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Path
) -> tuple[Path, Any, Any]:
    """A random checkpoint with its ONNX file, its torch model, and the tokenizer transformers makes of it."""
    torch = pytest.importorskip("torch", reason="the reference scores are torch's")
    transformers = pytest.importorskip("transformers", reason="the reference scores are transformers'")
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("checkpoint") / request.param
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "num_labels": 1,
    }
    if request.param == "bert":
        bert_folder(folder)
        size = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
        config = transformers.BertConfig(vocab_size=size, max_position_embeddings=512, initializer_range=0.5, **shape)
        model = transformers.BertForSequenceClassification(config)
    else:
        folder.mkdir()
        for path in tiny.glob("*token*.json"):
            shutil.copy(path, folder)
        size = json.loads((tiny / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        config = transformers.XLMRobertaConfig(
            vocab_size=size,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=1,
            initializer_range=0.5,
            **shape,
        )
        model = transformers.XLMRobertaForSequenceClassification(config)
    model.eval()
    model.save_pretrained(folder)
    with pytest.warns():  # torch announces the successor of its TorchScript exporter
        torch_export(model, folder, token_types=request.param == "bert")
    return folder, model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("shape", [16, 128, 512])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_scores_equal_those_of_transformers(
    checkpoint: tuple[Path, Any, Any], zoo: Zoo, tmp_path: Path, shape: int, batch_size: int
) -> None:
    import torch

    folder, model, tokenizer = checkpoint
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(pair) for pair in PAIRS), encoding="utf-8")
    result = zoo(
        "run", "bge-reranker-v2-m3", "--config-path", folder, "--ckpt", folder / "model.onnx", "--data-path", path,
        "--shape", shape, "--batch-size", batch_size, "--target", "cpu", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    ours = [json.loads(line)["logit"] for line in result.stdout.splitlines()]
    theirs = []
    for query, passage in PAIRS:
        # Not tokenizer(query, passage): transformers takes an empty passage for no passage at all.
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, passage)]
        cut = {"truncation": "only_second", "max_length": shape}
        inputs = tokenizer.prepare_for_model(*ids, **cut, return_tensors="pt", prepend_batch_axis=True)
        with torch.no_grad():
            theirs.append(model(**inputs).logits.item())
    assert max(theirs) - min(theirs) > 100 * TOLERANCE, "the reference must tell pairs apart"
    assert ours == pytest.approx(theirs, abs=TOLERANCE)


class Model:
    """Reads a pair as the code points of its texts, so that a test can tell which row is which."""

    def encodings(self, lengths: list[int]) -> Encodings:
        rows = [Encoding({"input_ids": [index + 1] * length}) for index, length in enumerate(lengths)]
        return Encodings(rows, {"input_ids": 0})


def test_batches_are_sorted_padded_to_their_longest_and_lose_nobody() -> None:
    encodings = Model().encodings([3, 9, 1, 9, 4])
    made = list(batches(encodings, ShapeRule(), 2, ["input_ids", "attention_mask"]))
    assert [list(batch.indices) for batch in made] == [[1, 3], [4, 0], [2]]
    assert [batch.inputs["input_ids"].shape for batch in made] == [(2, 9), (2, 4), (1, 1)]
    assert sum(batch.tokens for batch in made) == 26
    for batch in made:
        assert batch.inputs["input_ids"].dtype == np.int64
        assert ((batch.inputs["input_ids"] != 0) == (batch.inputs["attention_mask"] == 1)).all()


def test_a_fixed_shape_is_filled_by_repeating_the_last_row() -> None:
    encodings = Model().encodings([2, 5, 3])
    made = list(batches(encodings, ShapeRule(rows=2, length=8), 7, ["input_ids"]))
    assert [batch.inputs["input_ids"].shape for batch in made] == [(2, 8), (2, 8)]
    last = made[-1]
    assert list(last.indices) == [0]
    assert (last.inputs["input_ids"][0] == last.inputs["input_ids"][1]).all()
    with pytest.raises(PluginError, match="5 tokens does not fit the session's fixed length of 4"):
        list(batches(encodings, ShapeRule(rows=2, length=4), 7, ["input_ids"]))


def test_a_token_budget_bounds_rows_times_length() -> None:
    encodings = Model().encodings([100, 60, 50, 10, 10, 10])
    made = list(batches(encodings, ShapeRule(tokens=120, length_multiple=8), None, ["input_ids"]))
    assert [len(batch.indices) for batch in made] == [1, 1, 2, 2]
    assert all(batch.slots <= 120 or len(batch.indices) == 1 for batch in made)


def test_an_input_nobody_makes_is_named() -> None:
    with pytest.raises(PluginError, match="asks for the input 'pixel_values'"):
        wanted_inputs(Model().encodings([3]), ["input_ids", "pixel_values"], Features())


class FixedScores:
    """A pipeline participant and a session in one: each pair's score is a number written in its passage."""

    input_names, shape_rule = ("input_ids",), ShapeRule()

    def participant(self) -> object:
        from zoo import hookimpl

        values: list[float] = []

        class Participant:
            @hookimpl
            def preprocess(self, pairs: list[Pair]) -> Encodings:
                rows = []
                for pair in pairs:
                    rows.append(Encoding({"input_ids": [len(values)] * (1 + len(values) % 5)}))
                    values.append(float(pair.passage))
                return Encodings(rows, {"input_ids": 0})

            @hookimpl
            def postprocess(self, outputs: Mapping[str, Any]) -> Any:
                return np.array([values[n] for n in outputs["rows"]], dtype=np.float32)

        return Participant()

    def submit(self, inputs: Tensors) -> Future[Tensors]:
        future: Future[Tensors] = Future()
        future.set_result({"rows": inputs["input_ids"][:, 0]})
        return future


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_score_that_is_no_number_is_an_error_that_names_the_pair(value: str) -> None:
    fixed = FixedScores()
    scorer = Scorer(Pipeline([("model", fixed.participant())]), fixed, 2)  # type: ignore[arg-type]
    pairs = [Pair("fine", "1.5"), Pair("the guilty query", value)]
    with pytest.raises(ScoreError, match="'the guilty query'"):
        list(scorer.score(pairs))


def test_scores_come_in_the_order_of_the_pairs_across_windows() -> None:
    fixed = FixedScores()
    scorer = Scorer(Pipeline([("model", fixed.participant())]), fixed, 4)  # type: ignore[arg-type]
    pairs = [Pair("q", str(n * 37 % 500)) for n in range(500)]
    assert [(pair, score) for pair, score in scorer.score(pairs)] == [(pair, float(pair.passage)) for pair in pairs]


def options(**changed: Any) -> SessionOptions:
    return SessionOptions(**({"precision": "fp32", "batch_size": 1, "max_length": 512} | changed))


def test_a_session_may_be_closed_twice_and_not_used_afterwards(exported: Path) -> None:
    session = CpuDevice().open(
        Artifact(model=exported / "model.onnx", precision="fp32", origin="test"), options(threads=1)
    )
    ids = np.array([[0, 5, 2]], dtype=np.int64)
    inputs = {name: np.ones_like(ids) if "mask" in name else ids for name in session.input_names}
    with session:
        assert next(iter(session.submit(inputs).result().values())).shape == (1, 1)
    session.close()
    with pytest.raises((ZooError, RuntimeError)):
        session.submit(inputs).result()


def test_more_tokens_than_the_model_has_positions_is_an_error_not_a_crash(exported: Path) -> None:
    with CpuDevice().open(
        Artifact(model=exported / "model.onnx", precision="fp32", origin="test"), options()
    ) as session:
        ids = np.full((1, 20_000), 5, dtype=np.int64)
        inputs = {name: np.ones_like(ids) if "mask" in name else ids for name in session.input_names}
        with pytest.raises(ZooError, match=r"failed on a batch \(input_ids \(1, 20000\)"):
            session.submit(inputs).result()


def test_a_model_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"there is no model file .*gone\.onnx"):
        CpuDevice().open(Artifact(model=tmp_path / "gone.onnx", precision="fp32", origin="test"), options())


def test_outputs_of_more_than_one_label_are_refused(tiny: Path) -> None:
    from zoo_cross_encoder.reranker import CrossEncoder

    card = SimpleNamespace(name="x", max_length=512)
    model = CrossEncoder(card, SimpleNamespace(folder=tiny), max_length=64, query_max_length=64)  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match=r"\(3, 2\)"):
        model.postprocess({"logits": np.zeros((3, 2), dtype=np.float32)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, "a classifier with 2 labels"),
        ({"vocab_size": 10}, "are not of the same model"),
        ({"max_position_embeddings": 66}, "can read (64 tokens): use a --shape of 64 or less"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    zoo: Zoo, tiny: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("train"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | change
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    result = zoo("run", "zoo-reranker-tiny", "--config-path", folder)
    assert result.exit_code == 1
    assert said in result.stderr
