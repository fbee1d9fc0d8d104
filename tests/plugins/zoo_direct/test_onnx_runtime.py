"""Sessions of ONNX Runtime, which the core's plugins open alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import direct_checkpoints as direct
from zoo.api import onnxruntime_settings, onnxruntime_version, open_onnxruntime, read_onnx
from zoo_direct.build import write_graph


@pytest.mark.parametrize(
    ("version", "planned"), [("1.17.3", False), ("1.18.1", False), ("1.19.0", True), ("1.32.1", True)]
)
def test_versions_whose_memory_plans_are_wrong_get_none(
    monkeypatch: pytest.MonkeyPatch, version: str, planned: bool
) -> None:
    monkeypatch.setattr("onnxruntime.__version__", version)
    assert onnxruntime_version() == tuple(int(part) for part in version.split(".")[:2])
    settings = onnxruntime_settings(3)
    assert settings.enable_mem_pattern is planned
    assert settings.intra_op_num_threads == 3


def test_weights_are_found_beside_the_file_and_in_a_folder(tmp_path: Path) -> None:
    folder = direct.write(tmp_path / "weights", direct.BERT)
    model = write_graph(folder, form="onnxruntime", head=direct.LABEL).model
    (folder / "model.onnx").write_bytes(model)
    (tmp_path / "model.onnx").write_bytes(model)
    [batch] = direct.batches(direct.BERT, [(9, 4)])
    beside = open_onnxruntime(folder / "model.onnx", onnxruntime_settings(1)).run(None, batch)[0]
    if onnxruntime_version() >= (1, 21):
        for source in (tmp_path / "model.onnx", model):
            apart = open_onnxruntime(source, onnxruntime_settings(1), folder).run(None, batch)[0]
            assert np.array_equal(beside, apart)
    assert read_onnx(folder / "model.onnx").inputs == ["input_ids", "token_type_ids", "attention_mask"]


def test_a_normalisation_is_not_joined_with_the_sum_before_it(tmp_path: Path) -> None:
    """ONNX Runtime does so where it knows the shapes, and is slower then."""
    onnx = pytest.importorskip("onnx", reason="the graph that ONNX Runtime has made is read with onnx")
    folder = direct.write(tmp_path / "weights", direct.ROBERTA)
    (folder / "model.onnx").write_bytes(write_graph(folder, form="onnxruntime", head=direct.LABEL).model)
    settings = onnxruntime_settings(1)
    settings.optimized_model_filepath = str(tmp_path / "joined.onnx")
    open_onnxruntime(folder / "model.onnx", settings)
    made = onnx.load(str(tmp_path / "joined.onnx"), load_external_data=False)
    kinds = {node.op_type for node in made.graph.node}
    assert "BiasGelu" in kinds, "other nodes are joined"
    assert "LayerNormalization" in kinds
    assert "SkipLayerNormalization" not in kinds
