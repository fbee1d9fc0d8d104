"""``zoo-reranker-tiny`` is what its card says: small, whole, and able to tell a relevant passage from another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import ROOT, Zoo

PAIRS = ROOT / "tests" / "handwritten_pairs.jsonl"
"""A query with a passage that answers it and one that does not, in English and Chinese; written for this test."""


def triples() -> list[dict[str, str]]:
    return [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]


def test_what_is_shipped_is_under_25_mib(tiny: Path) -> None:
    shipped = [path for path in tiny.iterdir() if path.is_file()]
    assert {"config.json", "model.onnx", "model.safetensors", "tokenizer.json"} <= {path.name for path in shipped}
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
    model.eval()
    theirs = []
    for pair in pairs:
        inputs = tokenizer(*pair, truncation="only_second", max_length=512, return_tensors="pt")
        with torch.no_grad():
            theirs.append(model(**inputs).logits.item())
    assert ours == pytest.approx(theirs, abs=1e-4)
