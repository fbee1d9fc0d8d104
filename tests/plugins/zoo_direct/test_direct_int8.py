"""8-bit weights: what rounding does to a matrix, and graphs that need the checkpoint no longer."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from direct_checkpoints import (
    BERT,
    CONFIGS,
    DECODERS,
    LABEL,
    MODERNBERT,
    Config,
    batches,
    difference,
    open_session,
    run,
    save,
    write,
)
from zoo.api import onnxruntime_version
from zoo_direct.build import write_graph, write_int8_graph
from zoo_direct.form import Linear
from zoo_direct.int8 import BLOCK, Int8Graph, WeightFile, rounded_blocks, rounded_rows
from zoo_direct.int8_forms import BlocksForm, ChannelsForm, UnsignedChannelsForm
from zoo_direct.proof import expected
from zoo_direct.step import BLOCKS_SINCE
from zoo_direct.weights import Weights

pytestmark = [pytest.mark.lowest]
computes_8_bits = pytest.mark.skipif(onnxruntime_version() < BLOCKS_SINCE, reason="needs ONNX Runtime 1.22")

YES_NO = {"kind": "tokens", "positive": 9, "negative": 4}
LENGTHS = ((1,), (7,), (9, 5, 1), (30, 30), (57, 3, 20))


@pytest.mark.parametrize("into", [1, 42, 128, 129, 300])
def test_a_weight_is_off_by_a_step_at_most(into: int) -> None:
    matrix = np.random.default_rng(into).standard_normal((11, into), dtype=np.float32)
    packed, scales = rounded_blocks(matrix)
    assert packed.shape == (11, -(-into // BLOCK), BLOCK)
    steps = scales.reshape(11, -1, 1)
    restored = ((packed.astype(np.float32) - 128) * steps).reshape(11, -1)[:, :into]
    off = np.abs(restored - matrix) / np.repeat(np.abs(steps[..., 0]), BLOCK, 1)[:, :into]
    assert off.max() <= 1.001, (
        "only a weight as far from 0 as the furthest, with the other sign, is off by more than half a step"
    )
    assert np.mean(off > 0.5001) < 0.05
    furthest = np.abs(matrix).argmax(1)
    if into <= BLOCK:
        np.testing.assert_allclose(restored[np.arange(11), furthest], matrix[np.arange(11), furthest], rtol=1e-6)


def test_zeros_stay_zeros() -> None:
    packed, scales = rounded_blocks(np.zeros((2, 5), np.float32))
    assert np.all(packed == 128)
    assert np.all(np.isfinite(scales))
    rounded, steps = rounded_rows(np.zeros((2, 5), np.float32))
    assert np.all(rounded * steps == 0)


@computes_8_bits
@pytest.mark.parametrize(("out", "into"), [(5, 42), (37, 128), (16, 300)])
def test_the_operator_reads_blocks_as_they_are_written(tmp_path: Path, out: int, into: int) -> None:
    """A product of whole numbers, which neither rounding changes: the weights are multiples of a scale of 1, the input of 127ths."""
    random = np.random.default_rng(out)
    matrix = random.integers(-127, 128, (out, into)).astype(np.float32)
    matrix[:, ::BLOCK] = -128
    rows = random.integers(-127, 128, (3, 2, into)).astype(np.float32)
    rows[..., ::BLOCK] = 127
    save(tmp_path / "model.safetensors", {"a.weight": matrix})
    with WeightFile(tmp_path / "int8") as file:
        form = BlocksForm(Int8Graph(Weights(tmp_path), file))
        x = form.graph.input("x", ["batch", "token", into], kind=1)
        form.graph.output("y", form.times(x, Linear("a", into, out, bias=False)), ["batch", "token", out])
    session = open_session(form.graph.encoded("one", form.operator_sets, form.ir_version), tmp_path)
    np.testing.assert_allclose(session.run(None, {"x": rows})[0], rows @ matrix.T, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("form", [ChannelsForm, UnsignedChannelsForm])
@pytest.mark.parametrize(("out", "into"), [(1, 7), (5, 42), (37, 300)])
def test_the_operator_reads_channels_as_they_are_written(
    tmp_path: Path, form: type[ChannelsForm], out: int, into: int
) -> None:
    """A product of whole numbers, which neither rounding changes: both scales are 1."""
    random = np.random.default_rng(out)
    matrix = random.integers(-127, 128, (out, into)).astype(np.float32)
    matrix[:, 0] = 127
    # Small ones with one of 255: without int8 dot products, sums of two large products of signed weights are cut.
    rows = random.integers(0, 9, (3, 2, into)).astype(np.float32)
    rows[0, 0, 0] = 255
    bias = random.standard_normal(out).astype(np.float32)
    save(tmp_path / "model.safetensors", {"a.weight": matrix, "a.bias": bias})
    with WeightFile(tmp_path / "int8") as file:
        written = form(Int8Graph(Weights(tmp_path), file))
        x = written.graph.input("x", ["batch", "token", into], kind=1)
        written.graph.output("y", written.linear(x, Linear("a", into, out)), ["batch", "token", out])
    session = open_session(written.graph.encoded("one", written.operator_sets, written.ir_version), tmp_path)
    np.testing.assert_allclose(session.run(None, {"x": rows})[0], rows @ matrix.T + bias, rtol=1e-5, atol=1e-2)


FORM_AND_CONFIG = [
    *(("blocks", config) for config in (*CONFIGS.values(), *DECODERS.values())),
    *((form, config) for form in ("channels", "unsigned-channels", "weight-only") for config in CONFIGS.values()),
]


@pytest.mark.parametrize(
    ("form", "config"), FORM_AND_CONFIG, ids=[f"{form}-{config['model_type']}" for form, config in FORM_AND_CONFIG]
)
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F8_E4M3"])
def test_scores_stay_close_and_the_checkpoint_is_not_needed(
    tmp_path: Path, form: str, config: Config, dtype: str
) -> None:
    if form == "blocks" and onnxruntime_version() < BLOCKS_SINCE:
        pytest.skip("needs ONNX Runtime 1.22")
    config = {**config, "vocab_size": 4000}  # so that the table of words is worth rounding
    head = YES_NO if config["model_type"] in DECODERS else LABEL
    folder, alone, given = (
        write(tmp_path / "checkpoint", config, dtype=dtype),
        tmp_path / "alone",
        batches(config, LENGTHS),
    )
    wanted = expected(folder, given, head)
    alone.mkdir()
    graph = write_int8_graph(folder, alone / "weights.int8", form=form, head=head)
    shutil.rmtree(folder)
    assert not graph.borrowed
    scores = run(graph.model, alone, given)
    assert difference(wanted, scores) < 0.05
    one, other = (np.concatenate(logits).ravel() for logits in (wanted, scores))
    assert np.corrcoef(one, other)[0, 1] > 0.999


def test_the_file_is_about_a_quarter_of_float32(tmp_path: Path) -> None:
    config = {**BERT, "vocab_size": 4000, "hidden_size": 384, "intermediate_size": 768}
    folder = write(tmp_path, config)
    write_int8_graph(folder, tmp_path / "weights.int8", form="blocks", head=LABEL)
    share = (tmp_path / "weights.int8").stat().st_size / (tmp_path / "model.safetensors").stat().st_size
    assert 0.25 < share < 0.3  # the rest: scales, the position table and the head, which stay as they are


def test_it_is_written_without_a_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy alone makes the files, and twice the same ones."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    folder, made = write(tmp_path / "c", MODERNBERT), []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        graph = write_int8_graph(folder, tmp_path / name / "weights.int8", form="blocks", head=LABEL)
        made.append((graph.model, (tmp_path / name / "weights.int8").read_bytes()))
    assert made[0] == made[1]


@computes_8_bits
def test_a_prefix_that_rows_share_works_in_8_bits_too(tmp_path: Path) -> None:
    config: dict[str, Any] = {**DECODERS["qwen3"]}
    folder, given = write(tmp_path, config), batches(config, LENGTHS)
    graph = write_int8_graph(folder, tmp_path / "weights.int8", form="blocks", head=YES_NO, shared_prefix=True)
    bare = write_graph(folder, form="onnxruntime", head=YES_NO)
    assert difference(run(bare.model, folder, given), run(graph.model, folder, given)) < 0.05
