"""The step ``flash``: attention by ONNX Runtime's own operator, with the same scores, and hands off where the mask is another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_graphs import encoder
from zoo.export.process import Job

pytestmark = [pytest.mark.export]

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
ort = pytest.importorskip("onnxruntime")

ATTENTIONS = 5
"""Of the embedded model: six layers, of which trim has given the last one query only."""


@pytest.fixture
def model(exported: Path) -> Any:
    """The shipped graph with its weights in it, in float32."""
    from zoo.api import load_onnx_weights, widen_weights

    proto = onnx.load(exported / "model.onnx", load_external_data=False)
    load_onnx_weights(proto, exported)
    return widen_weights(proto)


def joined(model: Any) -> tuple[Any, int]:
    from zoo_onnx.flash_attention import join

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, join(copy)


def logits(model: Any, lengths: list[int], width: int, profile: Path | None = None) -> tuple[Any, list[str]]:
    """Scores of random rows of these lengths padded to ``width``, and with a profile the names of the attentions that ran."""
    settings = ort.SessionOptions()
    if profile:
        settings.enable_profiling, settings.profile_file_prefix = True, str(profile)
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask == 1, np.random.default_rng(width).integers(5, 18000, mask.shape), 1)
    scores = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    ran: list[str] = []
    if profile:
        events = json.loads(Path(session.end_profiling()).read_text())
        ran = [
            event["name"]
            for event in events
            if event.get("args", {}).get("op_name") == "MultiHeadAttention" and event["name"].endswith("kernel_time")
        ]
    return scores, ran


@pytest.mark.parametrize(
    ("lengths", "width"), [([1], 1), ([9], 9), ([512], 512), ([70, 70], 70), ([64, 40, 1], 64), ([300, 512], 512)]
)
def test_scores_stay_whether_a_batch_is_padded_or_not(
    model: Any, tmp_path: Path, lengths: list[int], width: int
) -> None:
    changed, count = joined(model)
    assert count == ATTENTIONS
    onnx.checker.check_model(changed)
    expected, _ = logits(model, lengths, width)
    scores, ran = logits(changed, lengths, width, tmp_path / "profile")
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    branch = "unpadded" if set(lengths) == {width} else "padded"
    assert sum(f"/{branch}_" in name for name in ran) == len(ran) == ATTENTIONS


def test_what_is_padding_does_not_count(model: Any) -> None:
    changed, _ = joined(model)
    session = ort.InferenceSession(changed.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(1).integers(5, 18000, (2, 50))
    mask = np.ones((2, 50), np.int64)
    mask[0, 30:] = 0
    first = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    ids[0, 30:] = 7
    assert np.array_equal(session.run(None, {"input_ids": ids, "attention_mask": mask})[0], first)


def test_an_attention_whose_inside_is_read_elsewhere_stays(model: Any) -> None:
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output.append(onnx.helper.make_tensor_value_info(softmax.output[0], 1, None))
    _, count = joined(model)
    assert count == ATTENTIONS - 1


def test_another_mask_than_one_of_padding_stays(model: Any) -> None:
    """Here it takes 1 from what is hidden, as a penalty would: the operator's own mask hides altogether."""
    smallest = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == 1 and not tensor.dims and onnx.numpy_helper.to_array(tensor) < -1e4
    ]
    assert smallest
    for tensor in smallest:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(-1, np.float32), tensor.name))
    changed, count = joined(model)
    assert count == 0
    assert changed == model


def test_a_graph_without_a_mask_of_tokens_stays() -> None:
    model = encoder("mean", full=True)
    changed, count = joined(model)
    assert count == 0
    assert changed == model


def test_it_runs_beside_weights_in_a_file_of_their_own(model: Any, tmp_path: Path) -> None:
    from zoo_onnx.flash_attention import flash

    source, target = tmp_path / "2-trim" / "model.onnx", tmp_path / "3-flash"
    for folder in (source.parent, target):
        folder.mkdir()
    inputs = {"input_ids": np.full((2, 20), 9), "attention_mask": np.ones((2, 20), np.int64)}
    expected = ort.InferenceSession(model.SerializeToString()).run(None, inputs)[0]
    onnx.save(model, str(source), save_as_external_data=True, location="weights.bin", convert_attribute=True)
    job = Job(name="flash", model=source, target=target, reference=target)
    assert flash(job)["note"] == f"{ATTENTIONS} attentions joined"
    session = ort.InferenceSession(str(job.output), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=2e-5)
