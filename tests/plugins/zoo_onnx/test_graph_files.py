"""What the steps share: weights stored in fewer bits are made float32 before a graph is fused, quantised or made float16."""

from __future__ import annotations

from pathlib import Path

import pytest

from direct_checkpoints import LABEL, ROBERTA, batches, difference, run, write
from zoo_direct.build import write_graph

onnx = pytest.importorskip("onnx")

from zoo_onnx.graph_files import widened  # noqa: E402


@pytest.mark.parametrize("form", ["standard", "plain", "onnxruntime"])
@pytest.mark.parametrize("dtype", ["F16", "F8_E4M3"])
def test_stored_weights_become_float32_and_scores_stay(tmp_path: Path, dtype: str, form: str) -> None:
    folder, given = write(tmp_path / "model", ROBERTA, dtype=dtype), batches(ROBERTA)
    graph = write_graph(folder, form=form, head=LABEL)
    (folder / "model.onnx").write_bytes(graph.model)
    wide = widened(folder / "model.onnx", tmp_path / "target")
    assert wide != folder / "model.onnx"
    model = onnx.load(wide)
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert any(name in weights for node in products for name in node.input), "a product reads its weights themselves"
    logits = run(wide.read_bytes(), wide.parent, given)
    assert difference(run(graph.model, folder, given), logits) < 1e-5


def test_a_model_in_float32_stays_the_file_it_is(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", ROBERTA)
    (folder / "model.onnx").write_bytes(write_graph(folder, form="standard", head=LABEL).model)
    assert widened(folder / "model.onnx", tmp_path / "target") == folder / "model.onnx"
