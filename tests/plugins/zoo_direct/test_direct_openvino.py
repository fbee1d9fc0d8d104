"""OpenVINO computes the standard form of every family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from direct_checkpoints import CONFIGS, DECODERS, LABEL, Batch, Config, batches, difference, write
from zoo_direct.build import write_graph, write_int8_graph
from zoo_direct.proof import expected

pytestmark = [pytest.mark.openvino]

openvino = pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")

TOLERANCE = 1e-6
"""Of the largest logit."""
YES_NO = {"kind": "tokens", "positive": 9, "negative": 4}
LENGTHS = ((1,), (7,), (9, 5, 1), (30, 30), (57, 3, 20))


def compiled(model: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """OpenVINO looks for weights in the working folder if it is given the graph as bytes."""
    monkeypatch.chdir(folder)
    core = openvino.Core()
    return core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def logits(model: Any, given: Sequence[Batch], empty: dict[str, Any]) -> list[Any]:
    names = [port.get_any_name() for port in model.inputs]
    return [model({name: {**empty, **batch}[name] for name in names})["logits"] for batch in given]


@pytest.mark.parametrize("config", [*CONFIGS.values(), *DECODERS.values()], ids=lambda config: config["model_type"])
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F8_E4M3"])
def test_openvino_gives_what_the_proof_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config, dtype: str
) -> None:
    head = YES_NO if config in DECODERS.values() else LABEL
    folder, given = write(tmp_path, config, dtype=dtype), batches(config, LENGTHS)
    wanted = expected(folder, given, head)
    model = compiled(write_graph(folder, form="standard", head=head).model, folder, monkeypatch)
    assert difference(wanted, logits(model, given, {})) < TOLERANCE


@pytest.mark.parametrize("config", [*CONFIGS.values(), *DECODERS.values()], ids=lambda config: config["model_type"])
def test_openvino_takes_weights_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    config = {**config, "vocab_size": 4000}  # so that the table of words is worth rounding
    head = YES_NO if config in DECODERS.values() or config["model_type"] in DECODERS else LABEL
    folder, given = write(tmp_path, config), batches(config, LENGTHS)
    wanted = expected(folder, given, head)
    model = compiled(
        write_int8_graph(folder, folder / "weights.int8", form="weight-only", head=head).model, folder, monkeypatch
    )
    assert 0 < difference(wanted, logits(model, given, {})) < 0.05


def test_openvino_takes_a_prefix_that_rows_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DECODERS["qwen3"]
    folder = write(tmp_path, config)
    (batch,) = batches(config, [(40, 20)])
    batch["input_ids"][:, :8] = batch["input_ids"][0, :8]
    model = compiled(write_graph(folder, form="standard", head=YES_NO, shared_prefix=True).model, folder, monkeypatch)
    shape = (1, config["num_key_value_heads"], 0, config["head_dim"])
    names = [port.get_any_name() for port in model.inputs if port.get_any_name().startswith("past_")]
    begun = model({"input_ids": batch["input_ids"][:1, :8], "attention_mask": np.ones((1, 8), np.int64),
                   **{name: np.zeros(shape, np.float32) for name in names}})  # fmt: skip
    past = {name: begun[name.replace("past", "new")] for name in names}
    rest = {name: array[:, 8:] for name, array in batch.items()}
    assert difference(expected(folder, [batch], YES_NO), logits(model, [rest], past)) < TOLERANCE
