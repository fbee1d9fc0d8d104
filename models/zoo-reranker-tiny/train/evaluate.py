"""Rerank first-stage candidates of BEIR-layout folders and report nDCG@10 and MRR@10 beside the first stage's own.

    evaluate.py FOLDER... --model MODEL [--queries 100] [--bf16]

A folder holds corpus.jsonl, queries.jsonl, qrels/test.tsv and bm25-top100.json ({"search_results": {query: {document: score}}}).
`--queries N` takes N queries spread evenly over the sorted ids: the same ones every time. Without `--bf16` the model
runs in float32 through transformers.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import pytrec_eval
import torch
from tokenizers import Tokenizer
from train import Lean, pair
from transformers import AutoModelForSequenceClassification


def rows_of(path: Path) -> dict[str, str]:
    out = {}
    for line in path.open(encoding="utf-8"):
        item = json.loads(line)
        out[str(item["_id"])] = " ".join(x for x in (item.get("title", ""), item["text"]) if x)
    return out


@torch.no_grad()
def exact(model: torch.nn.Module, rows: list[list[int]]) -> torch.Tensor:
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    scores = torch.empty(len(rows))
    for start in range(0, len(order), 16):
        part = order[start : start + 16]
        width = max(len(rows[i]) for i in part)
        ids = torch.ones(len(part), width, dtype=torch.long)
        for n, i in enumerate(part):
            ids[n, : len(rows[i])] = torch.tensor(rows[i])
        scores[part] = model(input_ids=ids, attention_mask=(ids != 1).long()).logits[:, 0]
    return scores


def measure(runs: dict, qrels: dict) -> dict[str, float]:
    table = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recip_rank"}).evaluate(runs)
    return {key: float(np.mean([x[key] for x in table.values()])) for key in ("ndcg_cut_10", "recip_rank")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--limit", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    model = AutoModelForSequenceClassification.from_pretrained(args.model, dtype=torch.float32).eval()
    lean = Lean(model)
    print("collection\tqueries\tBM25 nDCG@10\tnDCG@10\tBM25 MRR\tMRR\tpairs/s", flush=True)
    for folder in args.folders:
        corpus, queries = rows_of(folder / "corpus.jsonl"), rows_of(folder / "queries.jsonl")
        qrels: dict[str, dict[str, int]] = {}
        with (folder / "qrels/test.tsv").open() as f:
            for row in csv.DictReader(f, delimiter="\t"):
                qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
        first = json.loads((folder / "bm25-top100.json").read_text())["search_results"]
        names = sorted(q for q in first if q in qrels)
        if args.queries and args.queries < len(names):
            names = [names[i * len(names) // args.queries] for i in range(args.queries)]
        ids: dict[str, np.ndarray] = {}
        run, pairs, start = {}, 0, time.time()
        for name in names:
            query = np.array(tokenizer.encode(queries[name], add_special_tokens=False).ids, np.int32)
            rows = []
            for doc in first[name]:
                if doc not in ids:
                    ids[doc] = np.array(tokenizer.encode(corpus[doc], add_special_tokens=False).ids, np.int32)
                rows.append(pair(query, ids[doc], args.limit))
            with torch.no_grad():
                scores = lean(rows, 8192) if args.bf16 else exact(model, rows)
            run[name] = {doc: float(s) for doc, s in zip(first[name], scores)}
            pairs += len(rows)
        base = measure({q: first[q] for q in names}, {q: qrels[q] for q in names})
        ours = measure(run, {q: qrels[q] for q in names})
        print(f"{folder.name}\t{len(names)}\t{base['ndcg_cut_10']:.4f}\t{ours['ndcg_cut_10']:.4f}\t{base['recip_rank']:.4f}\t"
              f"{ours['recip_rank']:.4f}\t{pairs / (time.time() - start):.0f}", flush=True)


if __name__ == "__main__":
    main()
