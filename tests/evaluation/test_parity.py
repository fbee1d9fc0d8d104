"""Equality with FlagEmbedding itself: its evaluator on the same scores, its reranker on the same checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_metrics import random_case

import small_collection as small
from conftest import Zoo
from random_checkpoints import torch_export
from zoo.evaluation import metrics

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # FlagEmbedding and what it imports warn of much
]

SAME = 1e-4
"""Scores closer than this may change places: torch and ONNX Runtime sum in different orders."""


@pytest.fixture(scope="module")
def evaluation() -> Any:
    return pytest.importorskip(
        "FlagEmbedding.abc.evaluation", reason="FlagEmbedding is not installed (tox -e parity)", exc_type=ImportError
    )


@pytest.mark.parametrize("seed", range(25))
def test_metrics_equal_flagembeddings_to_all_five_places(evaluation: Any, seed: int) -> None:
    run, qrels = random_case(seed)
    utils = evaluation.evaluator
    theirs: dict[str, float] = {}
    for found in (
        *utils.evaluate_metrics(qrels=qrels, results=run, k_values=[10, 100]),
        utils.evaluate_mrr(qrels=qrels, results=run, k_values=[10, 100]),
    ):
        theirs.update(found)
    ours = metrics.evaluate(run, qrels)
    names = {"NDCG": "ndcg", "MAP": "map", "Recall": "recall", "P": "precision", "MRR": "mrr"}
    assert theirs == {f"{name}@{k}": ours[f"{mine}@{k}"] for name, mine in names.items() for k in (10, 100)}


@pytest.mark.parametrize("seed", range(25))
def test_capped_recall_equals_flagembeddings_where_that_is_defined(evaluation: Any, seed: int) -> None:
    run, qrels = random_case(seed)
    # It divides by zero for a query without a relevant passage.
    relevant = {query: judged for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())}
    run = {query: scores for query, scores in run.items() if query in relevant}
    theirs = evaluation.evaluator.evaluate_recall_cap(qrels=relevant, results=run, k_values=[10, 100])
    ours = metrics.evaluate(run, relevant)
    assert theirs == {f"R_cap@{k}": ours[f"recall_cap@{k}"] for k in (10, 100)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A random XLM-RoBERTa checkpoint that torch and ONNX Runtime both can open."""
    torch = pytest.importorskip("torch", reason="FlagReranker computes with torch")
    transformers = pytest.importorskip("transformers", reason="FlagReranker is built on transformers")
    torch.manual_seed(11)
    folder = tmp_path_factory.mktemp("checkpoint")
    for path in tiny.glob("*token*.json"):
        shutil.copy(path, folder)
    size = json.loads((tiny / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = transformers.XLMRobertaConfig(
        vocab_size=size, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, initializer_range=0.5,
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=1,
    )  # fmt: skip
    model = transformers.XLMRobertaForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    torch_export(model, folder, token_types=False)
    return folder


@pytest.mark.parametrize("query_max_length", [512, 384, 5])
def test_order_and_metrics_equal_flagrerankers(
    evaluation: Any, checkpoint: Path, zoo: Zoo, tmp_path: Path, query_max_length: int
) -> None:
    from FlagEmbedding import FlagReranker

    path = small.mldr(tmp_path)
    reranker = FlagReranker(
        str(checkpoint), use_fp16=False, devices=["cpu"], max_length=512, query_max_length=query_max_length
    )
    corpus = {passage: {"text": text} for passage, text in small.PASSAGES.items()}
    theirs = evaluation.EvalReranker(reranker, rerank_top_k=3)(
        corpus, small.QUERIES, {query: dict(found) for query, found in small.CANDIDATES.items()}
    )
    result = zoo(
        "run", "bge-reranker-v2-m3", "--mode", "valid", "--config-path", checkpoint, "--data-path", path, "--top-k", 3,
        "--query-max-length", query_max_length, "--target", "cpu", "--no-half", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    ours = json.loads((tmp_path / "out/search_results/bge-m3/bge-reranker-v2-m3/en-test.json").read_text())
    for query, scores in theirs.items():
        found = ours["search_results"][query]
        assert list(found) == list(scores)  # both keep the first stage's order in the file
        assert found == pytest.approx(scores, abs=SAME)
    figures = evaluation.AbsEvaluator.compute_metrics(small.QRELS, theirs, [10, 100])
    written = json.loads((tmp_path / "out/search_results/bge-m3/bge-reranker-v2-m3/EVAL/eval_results.json").read_text())
    assert written == {"en-test": figures}


def test_flagembedding_reads_our_result_files(evaluation: Any, zoo: Zoo, tmp_path: Path) -> None:
    zoo(
        "run", "zoo-reranker-tiny", "--mode", "valid", "--data-path", small.mldr(tmp_path), "--output", tmp_path / "out"
    )
    folder = tmp_path / "out/search_results/bge-m3/zoo-reranker-tiny"

    class Loader:
        def load_qrels(self, dataset_name: str, split: str) -> dict[str, dict[str, int]]:
            return small.QRELS

    evaluator = evaluation.AbsEvaluator("mldr", Loader())
    info, results = evaluator.load_search_results(folder / "en-test.json")
    evaluator.check_data_info(info, "bge-m3", "zoo-reranker-tiny", "test", "en")
    assert set(results) == set(small.QUERIES)
    theirs = evaluator.evaluate_results(str(folder), k_values=[10, 100])
    assert theirs == json.loads((folder / "EVAL" / "eval_results.json").read_text())
