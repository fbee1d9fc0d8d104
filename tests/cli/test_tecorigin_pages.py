"""The commands of Tecorigin's page of bge-reranker-large: options, file names, and the form of what is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import PANDA, ROOT, Zoo
from zoo.registry.card import load_card

LARGE = load_card(ROOT / "models" / "bge-reranker-large.toml")


@pytest.fixture
def page(tmp_path: Path, exported: Path) -> Path:
    """The folder of the page: a model file of the page's name (the embedded model's), the config folder, and the demo's data."""
    for path in exported.iterdir():
        if path.name.startswith("model."):
            (Path.cwd() / path.name).symlink_to(path)
    Path("bge-reranker-large.onnx").symlink_to(exported / "model.onnx")
    config = Path("config")
    config.mkdir()
    for path in exported.glob("*.json"):
        shutil.copy(path, config)
    shutil.copytree(ROOT / "datas", "datas", ignore=shutil.ignore_patterns("mldr-mini"))
    return Path.cwd()


def test_the_demo_runs_with_the_pages_options(zoo: Zoo, page: Path) -> None:
    result = zoo(
        "run", "bge-reranker-large", "--ckpt", "bge-reranker-large.onnx", "--config-path", "config", "--data-path",
        "datas/bge-reranker-large_demo.txt", "--batch-size", "2", "--shape", "512", "--no-half", "--target", "onnx",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split("-相似度:")[0] for line in lines] == [repr([list(pair)]) for pair in PANDA]
    assert all(float(line.split("-相似度:")[1]) for line in lines)


def test_the_pages_figures_stand_in_the_card() -> None:
    demo = {entry.metric: entry.value for entry in LARGE.reference if entry.dataset == "panda-demo"}
    assert demo == {"score@1": -5.609375, "score@2": 5.76171875}
    assert LARGE.max_length == 512


def test_a_longer_shape_than_the_model_has_positions_is_refused(zoo: Zoo, page: Path) -> None:
    words = ("--ckpt", "bge-reranker-large.onnx", "--config-path", "config", "--target", "cpu")
    result = zoo("run", "bge-reranker-large", *words, "--shape", "514")
    assert result.exit_code == 1
    assert "can read (512 tokens)" in result.stderr


def test_its_data_set_of_pairs_is_read_and_compared_by_verify(zoo: Zoo, page: Path) -> None:
    rows = [
        {"text1": query, "text2": passage, "label": 1, "idx": number}
        for number, (query, passage) in enumerate(PANDA * 3)
    ]
    Path("mrpc.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    words = (
        "bge-reranker-large",
        "--ckpt",
        "bge-reranker-large.onnx",
        "--config-path",
        "config",
        "--data-path",
        "mrpc.jsonl",
    )
    result = zoo("verify", *words, "--target", "cpu", "--no-torch", "--batch-size", "4", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["model"] == "bge-reranker-large"
    [check, *_] = report["checks"]
    assert check["deviation"] <= 1e-5
    assert len(report["pairs"]) == 6
    as_data_set = zoo("run", *words, "--mode", "valid", "--target", "cpu")
    assert as_data_set.exit_code == 1
    assert "compared with ONNX Runtime's scores by 'zoo verify'" in as_data_set.stderr
