"""One small collection, written in every layout that valid mode reads."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PASSAGES = {
    "p1": "The waggle dance tells other bees where flowers are.",
    "p2": "Honey keeps because it holds almost no water.",
    "p3": "Tides follow the moon, whose gravity raises two bulges of water.",
    "p4": "青花瓷用钴料在坯上画花纹，罩上透明釉，一次高温烧成。",
    "p5": "A geyser throws up water that steam drives through a narrow pipe.",
    "p6": "A hash table finds a key in about the same time however many there are. " * 60,
    "p7": "Nobody asks for this passage.",
}
QUERIES = {
    "q1": "how do bees tell where flowers are",
    "q2": "what causes tides",
    "q3": "青花瓷怎样烧成",
    "q4": "hash table",
}
QRELS = {
    "q1": {"p1": 1, "p2": 0},
    "q2": {"p3": 1, "p5": 0, "p2": 0},
    "q3": {"p4": 2, "p1": 1},
    "q4": {"p6": 1},
}
CANDIDATES = {
    "q1": {"p2": 7.5, "p1": 6.25, "p3": 1.0, "p5": 0.5},
    "q2": {"p5": 3.0, "p3": 3.0, "p2": 2.0, "p6": 0.25},
    "q3": {"p4": 9.0, "p1": 1.0, "p2": 0.5},
    "q4": {"p6": 4.0, "p5": 1.0},
}
PAIRS = sum(map(len, CANDIDATES.values()))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode("utf-8")))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def first_stage(dataset: str, name: str, **changed: object) -> str:
    content = {
        "eval_name": dataset, "model_name": "bge-m3", "reranker_name": "NoReranker", "split": "test", "dataset_name": name,
        "search_results": CANDIDATES,
    }  # fmt: skip
    return json.dumps({**content, **changed}, indent=4)


def mldr(root: Path, language: str = "en") -> Path:
    """``root/mldr/data`` with the harness's first-stage file beside it."""
    folder = root / "mldr" / "data" / language
    write(folder / "corpus.jsonl", json_lines({"id": p, "text": text} for p, text in PASSAGES.items()))
    write(folder / "test_queries.jsonl", json_lines({"id": q, "text": text} for q, text in QUERIES.items()))
    judgements = ({"qid": q, "docid": p, "relevance": r} for q, found in QRELS.items() for p, r in found.items())
    write(folder / "test_qrels.jsonl", json_lines(judgements))
    write(root / "mldr" / f"{language}-test.json", first_stage("mldr", language))
    return root / "mldr" / "data"


def beir(root: Path) -> Path:
    folder = root / "small"
    write(folder / "corpus.jsonl", json_lines({"_id": p, "title": "", "text": t} for p, t in PASSAGES.items()))
    others = {"train-1": "a query of another split"}
    write(folder / "queries.jsonl", json_lines({"_id": q, "text": t} for q, t in {**QUERIES, **others}.items()))
    rows = [f"{q}\t{p}\t{r}\n" for q, found in QRELS.items() for p, r in found.items()]
    write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n" + "".join(rows))
    write(folder / "small-test.json", first_stage("small", "small"))
    return folder


def trec(root: Path) -> Path:
    folder = root / "small"
    write(folder / "corpus.jsonl", json_lines({"id": p, "text": text} for p, text in PASSAGES.items()))
    write(folder / "queries.tsv", "".join(f"{q}\t{text}\n" for q, text in QUERIES.items()))
    write(folder / "qrels.txt", "".join(f"{q} 0 {p} {r}\n" for q, found in QRELS.items() for p, r in found.items()))
    rows = [
        f"{q} Q0 {p} {rank} {score} bge-m3\n"
        for q, found in CANDIDATES.items()
        for rank, (p, score) in enumerate(found.items(), start=1)
    ]
    write(folder / "run.txt", "".join(rows))
    return folder


def hub(root: Path) -> Path:
    """MLDR's raw files; judgements are 1 and 0 there, so the second grade of q3 is lost."""
    folder = root / "raw" / "mldr-v1.0-en"
    write(folder / "corpus.jsonl.gz", json_lines({"docid": p, "text": text} for p, text in PASSAGES.items()))
    rows = []
    for query, text in QUERIES.items():
        found = {1: [], 0: []}  # type: dict[int, list[dict[str, str]]]
        for passage, relevance in QRELS[query].items():
            found[min(relevance, 1)].append({"docid": passage, "text": PASSAGES[passage]})
        rows.append({"query_id": query, "query": text, "positive_passages": found[1], "negative_passages": found[0]})
    write(folder / "test.jsonl.gz", json_lines(rows))
    write(root / "raw" / "en-test.json", first_stage("mldr", "en"))
    return root / "raw"
