"""The step ``compress``: what becomes int8, how far it moves, and what is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo.checkpoints.files import model_files
from zoo.errors import ZooError
from zoo.export.process import Job
from zoo.export.run_steps import DefaultExport
from zoo.export.steps import Steps
from zoo.registry.catalogue import Catalogue
from zoo.types import Checkpoint, ExportRequest
from zoo_onnx import INT8
from zoo_onnx.graph_files import widened
from zoo_onnx.proof import open_session

pytestmark = [pytest.mark.export, pytest.mark.openvino]

onnx = pytest.importorskip("onnx", reason="int8 files are made with onnx")
compress = pytest.importorskip("zoo_onnx.weight_only_int8")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(7, 5), (3 * 4096 + 1, 3)])
def test_every_number_is_within_half_a_step_of_its_channel(shape: tuple[int, int], axis: int) -> None:
    values = (np.random.default_rng(3).normal(size=shape) * np.logspace(-3, 3, shape[1])).astype(np.float32)
    values[2] = 0
    rounded, scale = compress.rounded_to_int8(values, axis)
    assert rounded.dtype == np.int8
    assert scale.shape == (shape[axis],)
    assert abs(rounded.astype(int)).max() == 127
    steps = scale[:, None] if axis == 0 else scale[None, :]
    assert (np.abs(rounded * steps - values) <= 0.5001 * steps).all()
    assert (rounded[2] == 0).all()


def test_a_channel_of_zeros_stays_zero() -> None:
    rounded, scale = compress.rounded_to_int8(np.zeros((3, 4), np.float32), 0)
    assert not rounded.any()
    assert np.isfinite(scale).all()


def run_step(model: Path, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """The graph after the step, with its weights, and what the step said."""
    folder.mkdir()
    job = Job(name="weight-only-int8", model=model, target=folder / "out", reference=folder / "x", options=options)
    job.target.mkdir()
    said = compress.compress(job)
    onnx.checker.check_model(str(job.output))
    return onnx.load(str(job.output)), said


def weights_of(model: Any) -> dict[str, NDArray[Any]]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def write(path: Path, *, opset: int = 17, external: bool = False, shared: bool = False) -> Path:
    """A table, a matrix as MatMul, Gemm and a turned MatMul read it, and a head of one channel; ``shared`` reads the table twice."""
    make, random = onnx.helper, np.random.default_rng(1)
    weights = {
        "table": random.normal(size=(50, 8)),
        "first": random.normal(size=(8, 6)),
        "turned": random.normal(size=(9, 6)),
        "second": random.normal(size=(4, 9)),
        "bias": random.normal(size=(4,)),
        "head": random.normal(size=(4, 1)),
    }
    nodes = [
        make.make_node("Gather", ["table", "ids"], ["a"]),
        make.make_node("MatMul", ["a", "first"], ["b"]),
        make.make_node("Transpose", ["turned"], ["around"], perm=[1, 0]),
        make.make_node("MatMul", ["b", "around"], ["c"]),
        make.make_node("Gemm", ["c", "second", "bias"], ["d"], transB=1),
        make.make_node("MatMul", ["d", "head"], ["e"]),
    ]
    if shared:
        nodes += [make.make_node("MatMul", ["table", "first"], ["f"])]
    graph = make.make_graph(
        nodes,
        "small",
        [make.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])],
        [make.make_tensor_value_info("e", onnx.TensorProto.FLOAT, ["n", 1])],
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", opset)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path), save_as_external_data=external, location=f"{path.name}_data", size_threshold=0)
    return path


@pytest.mark.parametrize("external", [False, True])
def test_matrices_and_tables_become_int8_by_channel_and_compute_nearly_the_same(tmp_path: Path, external: bool) -> None:
    source = write(tmp_path / "in" / "model.onnx", external=external)
    model, said = run_step(source, tmp_path / "step")
    weights = weights_of(model)
    assert said == {"note": "4 matrices and tables in int8"}
    assert {name for name, array in weights.items() if array.dtype == np.int8} == {
        "table_int8", "first_int8", "turned_int8", "second_int8",
    }  # fmt: skip
    sizes = {name: len(array) for name, array in weights.items() if name.endswith("_scale")}
    assert sizes == {"table_scale": 50, "first_scale": 6, "turned_scale": 9, "second_scale": 4}
    assert weights["head"].dtype == weights["bias"].dtype == np.float32
    feed = {"ids": np.arange(50)}
    before, after = (
        open_session(path).run(None, feed)[0] for path in (source, tmp_path / "step" / "out" / "model.onnx")
    )
    assert 0 < np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "LARGEST_INSIDE", 10)
    monkeypatch.setattr("zoo_onnx.graph_files.SMALLEST_BESIDE", 16)
    model, _ = run_step(write(tmp_path / "in" / "model.onnx"), tmp_path / "step")
    assert sorted(path.name for path in (tmp_path / "step" / "out").iterdir()) == ["model.onnx", "model.onnx.data"]
    assert weights_of(model)["table_int8"].dtype == np.int8


def test_what_two_readers_read_along_different_axes_is_left_alone(tmp_path: Path) -> None:
    model, _ = run_step(write(tmp_path / "model.onnx", shared=True), tmp_path / "step")
    assert weights_of(model)["table"].dtype == np.float32
    assert weights_of(model)["first_int8"].dtype == np.int8


def test_an_old_opset_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="opset 12; int8 weights need 13"):
        run_step(write(tmp_path / "model.onnx", opset=12), tmp_path / "step")


def test_what_is_in_int8_already_stays_as_it_is(tmp_path: Path) -> None:
    run_step(write(tmp_path / "model.onnx"), tmp_path / "step")
    model, said = run_step(tmp_path / "step" / "out" / "model.onnx", tmp_path / "again")
    assert said == {"note": "it was in int8 already"}
    assert "table_int8" in weights_of(model)


def test_a_whole_model_is_compressed_with_its_proof_and_into_a_third(exported: Path, tmp_path: Path) -> None:
    source = widened(exported / "model.onnx", tmp_path / "source").parent
    folder = tmp_path / "out"
    folder.mkdir()
    request = ExportRequest(
        source=source / "model.onnx", checkpoint=Checkpoint(folder=exported, served_by="a test"), recipe=("weight-only-int8",),
        precision="int8", folder=folder,
    )  # fmt: skip
    artifact = DefaultExport(Steps(Catalogue.installed().steps)).export(request)
    (step,) = artifact.steps
    layers = sum(
        node.op_type == "Softmax"
        for node in onnx.load(str(exported / "model.onnx"), load_external_data=False).graph.node
    )
    assert step.note == f"{6 * layers + 1} matrices and tables in int8", (
        "six a layer but two fewer in the last, two tables, the head's first"
    )
    assert step.max_rel_error is not None
    assert 0 < step.max_rel_error <= INT8 == step.tolerance
    assert step.rank_correlation is not None
    assert step.rank_correlation > 0.8
    assert artifact.model.stat().st_size < 0.34 * sum(
        path.stat().st_size for path in model_files(source / "model.onnx")
    )
