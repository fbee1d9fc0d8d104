"""What a model file is: the graph and every file it reads tensors from, wherever in the graph they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zoo.api import Digests, fingerprint, model_files, read_onnx
from zoo.errors import InputError

onnx = pytest.importorskip("onnx")


def with_external_constant(folder: Path) -> Path:
    """A graph whose only numbers outside it belong to a Constant node, not to an initializer."""
    tensor = onnx.numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "numbers.bin")
    (folder / "numbers.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    info = onnx.helper.make_tensor_value_info
    nodes = [
        onnx.helper.make_node("Constant", [], ["w"], value=tensor),
        onnx.helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "test", [info("x", 1, [3])], [info("y", 1, [3])])
    path = folder / "model.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


def test_numbers_of_a_constant_in_another_file_are_a_part_of_the_model(tmp_path: Path) -> None:
    """With another content it is another model: an engine or an artifact of the first is not used for it."""
    model, digests = with_external_constant(tmp_path), Digests(tmp_path / "digests.json")
    assert model_files(model) == [model, tmp_path / "numbers.bin"]
    before = fingerprint(model, digests)
    (tmp_path / "numbers.bin").write_bytes(np.arange(1, 4, dtype=np.float32).tobytes())
    assert fingerprint(model, digests) != before
    (tmp_path / "numbers.bin").unlink()
    with pytest.raises(InputError, match=r"keeps its weights in numbers\.bin, which must lie beside it"):
        model_files(model)


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "it is empty"), (b"\x00" * 50, "damaged"), (b"not a model", "is not an ONNX file")]
)
def test_a_file_that_is_none_is_an_error_with_its_name(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.onnx: .*{said}"):
        read_onnx(tmp_path / "model.onnx")
