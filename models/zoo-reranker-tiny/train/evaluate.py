"""Rerank first-stage candidates of BEIR-layout folders: nDCG@10 and MRR@10 beside the first stage's own, over all queries.

    evaluate.py FOLDER... [--model MODEL] [--queries 100] [--device cpu] [--out FIGURES.json]
    evaluate.py FOLDER... --model MODEL --pack FILE.npz        only tokenise, for another machine
    evaluate.py --packed FILE.npz --model MODEL

A folder holds corpus.jsonl, queries.jsonl, qrels/test.tsv and bm25-top100.json ({"search_results": {query: {document: score}}}).
Intervals are 95 % bootstraps over queries (10,000 draws); that of the difference draws both at once. `--queries N` takes N queries
spread evenly over the sorted ids: the same ones every time.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mine import Data
from model import Shape, Student
from safetensors.torch import load_file

LIMIT = 512


def rows_of(path: Path) -> dict[str, str]:
    out = {}
    for line in path.open(encoding="utf-8"):
        item = json.loads(line)
        out[str(item["_id"])] = " ".join(x for x in (item.get("title", ""), item["text"]) if x)
    return out


def pack(folder: Path, tokenizer_file: Path) -> dict[str, np.ndarray]:
    """A collection as arrays: queries, documents cut to LIMIT pieces, candidates (-1 where there are fewer), judgements."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    corpus, queries = rows_of(folder / "corpus.jsonl"), rows_of(folder / "queries.jsonl")
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels/test.tsv").open() as f:
        for row in csv.DictReader(f, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    first = json.loads((folder / "bm25-top100.json").read_text())["search_results"]
    names = sorted(q for q in first if q in qrels)
    # Sorted downwards, so that of documents with equal scores the first one here is the one that trec_eval takes first.
    documents = sorted({d for q in names for d in first[q]}, reverse=True)
    at = {d: n for n, d in enumerate(documents)}
    width = max(len(first[q]) for q in names)
    candidates, scores, gains = (np.full((len(names), width), x, t) for x, t in ((-1, np.int32), (-1e9, np.float32), (0, np.int16)))
    ideal = np.zeros((len(names), 10), np.int16)
    for n, q in enumerate(names):
        found = sorted(first[q], key=lambda d: at[d])
        candidates[n, : len(found)] = [at[d] for d in found]
        scores[n, : len(found)] = [first[q][d] for d in found]
        gains[n, : len(found)] = [max(0, qrels[q].get(d, 0)) for d in found]
        best = sorted((g for g in qrels[q].values() if g > 0), reverse=True)[:10]
        ideal[n, : len(best)] = best
    q_ids = [np.array(e.ids, np.uint16) for e in tokenizer.encode_batch([queries[q] for q in names], add_special_tokens=False)]
    d_ids = [np.array(tokenizer.encode(corpus[d][:6000], add_special_tokens=False).ids[:LIMIT], np.uint16) for d in documents]
    return {"q_tokens": np.concatenate(q_ids), "q_length": np.array([len(x) for x in q_ids], np.uint16), "d_tokens": np.concatenate(d_ids),
            "d_length": np.array([len(x) for x in d_ids], np.uint16), "candidates": candidates, "scores": scores, "gains": gains, "ideal": ideal}


def measures(scores: np.ndarray, c: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(nDCG@10, MRR@10) of every query, as trec_eval computes them: linear gain, ties by document id."""
    scores = np.where(c["candidates"] < 0, -np.inf, scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    gains = np.take_along_axis(c["gains"], order, 1).astype(np.float64)
    discount = 1 / np.log2(np.arange(2, 12))
    ndcg = (gains * discount[: gains.shape[1]]).sum(1) / (c["ideal"] * discount).sum(1)
    hit = gains > 0
    return ndcg, np.where(hit.any(1), 1 / (1 + hit.argmax(1)), 0.0)


def interval(values: np.ndarray, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(10_000)]
    return [round(float(x), 4) for x in np.percentile(means, (2.5, 97.5))]


@torch.no_grad()
def rank(student: Student, c: dict[str, np.ndarray], device: torch.device, budget: int) -> tuple[np.ndarray, int, float]:
    """(scores of every candidate, pairs, seconds)."""
    names = SimpleNamespace(device=device)
    for name, key in (("q_tokens", "q_tokens"), ("q_length", "q_length"), ("tokens", "d_tokens"), ("p_length", "d_length")):
        setattr(names, name, torch.from_numpy(c[key].astype(np.int64)).to(device))
    names.q_start, names.p_start = names.q_length.cumsum(0) - names.q_length, names.p_length.cumsum(0) - names.p_length
    out = np.zeros(c["candidates"].shape, np.float32)
    rows, columns = np.nonzero(c["candidates"] >= 0)
    documents = c["candidates"][rows, columns]
    sizes = np.minimum(c["q_length"][rows].astype(np.int64) + c["d_length"][documents] + 4, LIMIT)
    order = np.argsort(sizes, kind="stable")
    started, at = time.time(), 0
    while at < len(order):
        count = max(1, budget // int(sizes[order[min(at + max(1, budget // int(sizes[order[at]])), len(order)) - 1]]))
        part = order[at : at + count]
        at += len(part)
        packed = Data.pack(names, torch.from_numpy(rows[part]).to(device), torch.from_numpy(documents[part].astype(np.int64)).to(device), LIMIT)  # type: ignore[arg-type]
        out[rows[part], columns[part]] = student(packed).float().cpu().numpy()
    return out, len(order), time.time() - started


def read_student(path: Path) -> Student:
    """A folder's or file's weights, computed with as they are."""
    weights = {name: tensor.float() for name, tensor in load_file(path / "model.safetensors" if path.is_dir() else path).items() if "position_ids" not in name}
    layers = 1 + max(int(name.split(".")[3]) for name in weights if ".layer." in name)
    return Student(weights, Shape(tuple(range(layers)), eight_bits=False)).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent, help="a folder, or a safetensors file with --packed")
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--packed", type=Path)
    parser.add_argument("--out", type=Path, help="figures and every query's nDCG@10 as JSON")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.packed:
        with np.load(args.packed) as file:
            arrays: dict[str, dict[str, np.ndarray]] = {}
            for key in file.files:
                name, _, part = key.partition("/")
                arrays.setdefault(name, {})[part] = file[key]
    else:
        arrays = {folder.name: pack(folder, args.model / "tokenizer.json") for folder in args.folders}
    if args.pack:
        np.savez(args.pack, **{f"{name}/{part}": value for name, c in arrays.items() for part, value in c.items()})
        return
    device = torch.device(args.device)
    student = read_student(args.model).to(device)
    figures: list[dict[str, Any]] = []
    for name, c in arrays.items():
        total = len(c["candidates"])
        if args.queries and args.queries < total:
            kept = [i * total // args.queries for i in range(args.queries)]
            starts = np.concatenate([[0], np.cumsum(c["q_length"].astype(int))])
            c = {**c, **{k: c[k][kept] for k in ("candidates", "scores", "gains", "ideal", "q_length")},
                 "q_tokens": np.concatenate([c["q_tokens"][starts[i] : starts[i + 1]] for i in kept])}
        scores, pairs, seconds = rank(student, c, device, 200_000 if device.type == "cuda" else 8192)
        (base, base_rr), (ours, ours_rr) = measures(c["scores"], c), measures(scores, c)
        row = {"collection": name, "queries": len(base), "bm25": round(base.mean(), 4), "ndcg@10": round(ours.mean(), 4), "interval": interval(ours),
               "difference": round((ours - base).mean(), 4), "difference interval": interval(ours - base), "bm25 mrr@10": round(base_rr.mean(), 4),
               "mrr@10": round(ours_rr.mean(), 4), "pairs/s": round(pairs / seconds)}
        print(json.dumps(row), flush=True)
        figures.append({**row, "queries' ndcg@10": [round(float(x), 4) for x in ours]})
    if args.out:
        args.out.write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
