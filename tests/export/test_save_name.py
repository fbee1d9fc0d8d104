"""``zoo simplify --save-name`` and ``zoo export --output`` on names that are not plain new files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from conftest import Zoo

pytestmark = pytest.mark.export

pytest.importorskip("onnx")
pytest.importorskip("onnxsim")


def test_a_link_stays_a_link_and_its_target_is_replaced(zoo: Zoo, exported: Path) -> None:
    Path("store").mkdir()
    Path("store/model.onnx").write_text("old")
    Path("link.onnx").symlink_to("store/model.onnx")
    result = zoo("simplify", exported / "model.onnx", "--save-name", "link.onnx")
    assert result.exit_code == 0, result.stderr
    assert Path("link.onnx").is_symlink()
    assert Path("store/model.onnx").stat().st_size > 1000
    assert zoo("run", "zoo-reranker-tiny", "--ckpt", "link.onnx").exit_code == 0


def test_weights_beside_a_link_would_not_be_found_and_are_refused(zoo: Zoo, exported: Path) -> None:
    Path("link.onnx").symlink_to("model.onnx")
    result = zoo("simplify", exported / "model.onnx", "--save-name", "link.onnx", "--save-as-external-data")
    assert result.exit_code == 1
    assert "name a file that is not a link" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["link.onnx"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_a_device(zoo: Zoo, exported: Path) -> None:
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    result = zoo("simplify", exported / "model.onnx", "--save-name", "null")
    assert result.exit_code == 0, result.stderr
    assert stat.S_ISCHR(Path("null").stat().st_mode)
    refused = zoo("export", "zoo-reranker-tiny", "--output", "null", "--precision", "int8", "--target", "cpu")
    assert refused.exit_code == 1
    assert stat.S_ISCHR(Path("null").stat().st_mode)
