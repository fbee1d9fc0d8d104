"""``zoo-reranker-tiny`` is what its card says: small, whole, and able to tell a relevant passage from another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT, Zoo
from random_checkpoints import weights_only

pytestmark = [pytest.mark.export]

PAIRS = ROOT / "tests" / "handwritten_pairs.jsonl"
"""A query with a passage that answers it and one that does not, in English and Chinese; written for this test."""


def triples() -> list[dict[str, str]]:
    return [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]


def test_what_is_shipped_is_under_25_mib(tiny: Path) -> None:
    shipped = [path for path in tiny.iterdir() if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in shipped}
    assert not list(tiny.rglob("*.onnx")), "its graph is written from the two first"
    assert sum(path.stat().st_size for path in shipped) < 25 * 2**20


def test_it_ranks_handwritten_pairs_right(zoo: Zoo, tmp_path: Path) -> None:
    cases = triples()
    assert len(cases) >= 12
    assert {case["language"] for case in cases} == {"en", "zh"}
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps([case["query"], case[which]]) for case in cases for which in ("relevant", "other")]
    path.write_text("\n".join(lines), encoding="utf-8")
    result = zoo("run", "zoo-reranker-tiny", "--data-path", path, "--json")
    assert result.exit_code == 0, result.stderr
    logits = [json.loads(line)["logit"] for line in result.stdout.splitlines()]
    wrong = [case["query"] for case, good, bad in zip(cases, logits[::2], logits[1::2], strict=True) if good <= bad]
    assert wrong == []


def moved(path: Path, more: int) -> None:
    """Write a safetensors file again with a header of another length, which moves every number."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    path.write_bytes((size + more).to_bytes(8, "little") + content[8 : 8 + size] + b" " * more + content[8 + size :])


def test_weights_that_were_written_again_get_a_graph_of_their_own(zoo: Zoo, tiny: Path, tmp_path: Path) -> None:
    """The graph that is kept names bytes of the file as it was."""
    folder = weights_only(tiny, tmp_path / "written again")
    words = ("run", "zoo-reranker-tiny", "--config-path", folder, "--target", "cpu", "--json")
    first = zoo(*words)
    assert first.exit_code == 0, first.stderr
    for more in (1, 8, 4096):
        moved(folder / "model.safetensors", more)
        again = zoo(*words)
        assert again.stdout == first.stdout, again.stderr
        assert "step 1 of 1: export (direct)" in again.stderr


def test_a_header_that_says_another_length_than_it_has_is_refused(zoo: Zoo, tiny: Path, tmp_path: Path) -> None:
    folder = weights_only(tiny, tmp_path / "damaged")
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    for off in (-1, 1, 2):
        path.write_bytes((size + off).to_bytes(8, "little") + content[8:])
        result = zoo("run", "zoo-reranker-tiny", "--config-path", folder, "--target", "cpu")
        assert result.exit_code == 1
        assert "model.safetensors" in result.stderr
        assert result.stdout == ""


def test_a_graph_beside_weights_that_were_written_again_is_not_scored_with(
    zoo: Zoo, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "written again"
    shutil.copytree(exported, folder)
    for more in (1, 8, 4096):
        moved(folder / "model.safetensors", more)
        result = zoo("run", "zoo-reranker-tiny", "--config-path", folder, "--target", "cpu")
        assert result.exit_code == 1
        assert "no tensor lies there" in result.stderr
        assert result.stdout == ""


def test_its_card_says_that_it_is_a_miniature(zoo: Zoo) -> None:
    [row] = [row for row in json.loads(zoo("models", "--json").stdout) if row["name"] == "zoo-reranker-tiny"]
    assert "miniature stand-in" in row["description"].lower()


def test_its_model_file_computes_what_transformers_computes(zoo: Zoo, tiny: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the reference scores are torch's")
    transformers = pytest.importorskip("transformers", reason="the reference scores are transformers'")
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny, torch_dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    pairs = [(case["query"], case["relevant"] * repeat) for case, repeat in zip(triples(), (1, 3, 9, 30), strict=False)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(pair) for pair in pairs), encoding="utf-8")
    result = zoo("run", "zoo-reranker-tiny", "--data-path", path, "--json", "--target", "cpu")
    ours = [json.loads(line)["logit"] for line in result.stdout.splitlines()]
    model.float().eval()  # transformers leaves 8-bit floats in their type
    theirs = []
    for pair in pairs:
        inputs = tokenizer(*pair, truncation="only_second", max_length=512, return_tensors="pt")
        with torch.no_grad():
            theirs.append(model(**inputs).logits.item())
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_the_export_through_torch_scores_the_same(zoo: Zoo, tiny: Path, tmp_path: Path) -> None:
    for module in ("torch", "optimum.exporters.onnx", "onnx"):
        pytest.importorskip(module, reason="the export extra is not installed")
    words = ("zoo-reranker-tiny", "--config-path", tiny, "--target", "cpu", "--json")
    made = zoo("export", *words, "--exporter", "optimum")
    assert made.exit_code == 0, made.stderr
    note = "7 nodes compute the first token only, and no keys and values for it"
    assert json.loads(made.stdout)["steps"][1]["note"] == note
    results = [zoo("run", *words, *more) for more in ((), ("--exporter", "optimum"))]
    logits = [[json.loads(line)["logit"] for line in result.stdout.splitlines()] for result in results]
    assert logits[1] == pytest.approx(logits[0], abs=1e-5)
    assert len(logits[0]) == 2


def test_its_card_gives_values_that_verify_holds_it_to(zoo: Zoo, tmp_path: Path) -> None:
    result = zoo(
        "verify", "zoo-reranker-tiny", "--target", "cpu", "--no-torch", "--output", tmp_path / "r.json", "--json"
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    own = [check["name"] for check in report["checks"] if check["name"].startswith("the model card's")]
    assert own == [
        "the model card's panda-demo, score@1",
        "the model card's panda-demo, score@2",
        "the model card's mldr-mini/en, ndcg@10",
        "the model card's mldr-mini/zh, ndcg@10",
    ]
