"""Distil the cross-encoder: cross entropy over one passage and its negatives against a softened target (`target` says which),
plus a little binary loss so that scores mean something.

    train.py --work WORK --base WORK/base --out WORK/model --steps 5000 [--lr 5e-4] [--processes 2]

`--steps` fixes the length and with it the learning-rate schedule; `--stop N` ends a run after N steps of that schedule,
so `--stop 20` repeats the first steps of the real run in a minute. Two processes of one thread each take half of every batch;
they are a third faster than one process of two threads, and compute the same but for the order of sums.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from checkpoint import write_like
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

LIMIT = 512


def pair(query: np.ndarray, passage: np.ndarray, limit: int) -> list[int]:
    q = query[: max(8, limit - 4 - len(passage))][:96].tolist()
    return [0, *q, 2, 2, *passage[: limit - 4 - len(q)].tolist(), 2]


def collate(rows: list[list[int]]) -> torch.Tensor:
    ids = np.ones((len(rows), -(-max(map(len, rows)) // 4) * 4), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return torch.from_numpy(ids)


@dataclass(frozen=True)
class Soft:
    """Weights of the target: see `target`. The teacher's cosines spread by about 0.03 within a group."""

    temperature: float
    lexical: float
    bonus: float


def target(group: dict, chosen: list[int], soft: Soft) -> torch.Tensor:
    """Which passage of a group should win, and by how much: the teacher's cosine plus BM25's view, the own passage lifted.

    Each of the two ranks better with the other's help (a bi-encoder misses words, BM25 misses meanings); the sum is what is distilled.
    """
    bm25, cosine = (torch.tensor([group[key][c] for c in chosen]) for key in ("s", "t"))
    z = (cosine + soft.lexical * bm25 / max(*group["s"], 1e-6)) / soft.temperature
    z[0] += soft.bonus
    return z.softmax(0)


def batches(data: dict, rng: random.Random, budget: int, k: int, limit: int, soft: Soft) -> Iterator[tuple[list[list[int]], torch.Tensor]]:
    """Endless batches of whole groups of 1 + k pairs, near `budget` tokens: rows, and a target a group."""
    passages, groups = data["passages"], data["groups"]
    while True:
        order = list(range(len(groups)))
        rng.shuffle(order)
        rows: list[list[int]] = []
        targets: list[torch.Tensor] = []
        size = 0
        for g in order:
            group = groups[g]
            refs = group["p"]
            # a group's last four passages are random, those before them BM25's
            hard = rng.sample(range(1, len(refs) - 4), min(k - 1, len(refs) - 5)) if len(refs) > 5 else []
            chosen = [0, *hard, *rng.sample(range(len(refs) - 4, len(refs)), k - len(hard))]
            rows += [pair(group["q"], passages[refs[c]], limit) for c in chosen]
            targets.append(target(group, chosen, soft))
            size += sum(map(len, rows[-k - 1 :]))
            if size >= budget:
                yield rows, torch.stack(targets)
                rows, targets, size = [], [], 0


class Lean(torch.nn.Module):
    """The same network as the wrapped transformers model, in bf16 and with less work.

    On two CPU cores nearly all the time goes into matrix products, so the last layer computes only what `<s>` needs,
    and a batch is cut into strips of similar length instead of being padded to its longest pair.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self.heads = model.config.num_attention_heads
        self.eps = model.config.layer_norm_eps

    def strip(self, ids: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        half = torch.bfloat16
        roberta = self.model.roberta
        e = roberta.embeddings
        batch, width = ids.shape
        x = words.view(batch, width, -1) + (e.position_embeddings.weight[2 : width + 2] + e.token_type_embeddings.weight[0])
        size = x.shape[-1]

        def norm(x: torch.Tensor, layer: torch.nn.LayerNorm) -> torch.Tensor:
            return F.layer_norm(x, (size,), layer.weight.to(x.dtype), layer.bias.to(x.dtype), self.eps)

        def linear(x: torch.Tensor, layer: torch.nn.Linear) -> torch.Tensor:
            return F.linear(x, layer.weight.to(half), layer.bias.to(half))

        def split(x: torch.Tensor, parts: int) -> torch.Tensor:
            return x.view(batch, -1, parts, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)

        x = norm(x, e.LayerNorm).to(half)
        bias = torch.where(ids == 1, -1e4, 0.0).to(half)[:, None, None, :]
        scale = (size // self.heads) ** -0.5
        last = len(roberta.encoder.layer) - 1
        for n, layer in enumerate(roberta.encoder.layer):
            a = layer.attention.self
            if n < last:
                weight = torch.cat([a.query.weight * scale, a.key.weight, a.value.weight]).to(half)
                q, k, v = split(F.linear(x, weight, torch.cat([a.query.bias * scale, a.key.bias, a.value.bias]).to(half)), 3)
            else:
                weight = torch.cat([a.key.weight, a.value.weight]).to(half)
                k, v = split(F.linear(x, weight, torch.cat([a.key.bias, a.value.bias]).to(half)), 2)
                x = x[:, :1]
                q = split(linear(x, a.query) * scale, 1)[0]
            mixed = (torch.softmax(q @ k.transpose(-1, -2) + bias, -1) @ v).transpose(1, 2).reshape(batch, -1, size)
            x = norm(x + linear(mixed, layer.attention.output.dense), layer.attention.output.LayerNorm)
            x = norm(x + linear(F.gelu(linear(x, layer.intermediate.dense)), layer.output.dense), layer.output.LayerNorm)
        head = self.model.classifier
        return head.out_proj(torch.tanh(head.dense(x[:, 0].float())))[:, 0]

    def forward(self, rows: list[list[int]], tokens: int = 1536) -> torch.Tensor:
        """Scores of the pairs, in their order."""
        if not rows:
            return torch.empty(0)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        strips, at = [], 0
        while at < len(order):
            end = at + 1
            while end < len(order) and (end - at + 1) * len(rows[order[end]]) <= tokens:
                end += 1
            strips.append(collate([rows[i] for i in order[at:end]]))
            at = end
        # One look-up for all strips: each costs a gradient of the size of the whole embedding.
        words = F.embedding(torch.cat([ids.view(-1) for ids in strips]), self.model.roberta.embeddings.word_embeddings.weight)
        out = [self.strip(ids, part) for ids, part in zip(strips, words.split([ids.numel() for ids in strips]))]
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(out)[back]


@torch.no_grad()
def evaluate(model: Lean, data: dict, groups: int, limit: int) -> dict[str, float]:
    """Mean reciprocal rank of the passage among its 14 negatives, by language group."""
    found: dict[str, list[float]] = defaultdict(list)
    for group in data["groups"][:groups]:
        rows = [pair(group["q"], data["passages"][p], limit) for p in group["p"]]
        scores = model(rows)
        rr = 1 / (1 + (scores[1:] >= scores[0]).sum().item())
        lexical = group["s"]
        base = 1 / (1 + sum(s >= lexical[0] for s in lexical[1:]))
        for key in ("all", group["lang"] if group["lang"] in ("en", "zh") else "other"):
            found[key].append(rr)
            found[f"bm25_{key}"].append(base)
    return {k: round(float(np.mean(v)), 4) for k, v in sorted(found.items())}


def save(model: torch.nn.Module, base: Path, out: Path) -> None:
    write_like(base, out, {k: v.detach().to(torch.float16).numpy() for k, v in model.state_dict().items() if "position_ids" not in k})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="train", help="name of the group file")
    parser.add_argument("--valid", default="valid", help="name of the group file for the validation curve")
    parser.add_argument("--temperature", type=float, default=0.02, help="cosine for one logit of the target")
    parser.add_argument("--lexical", type=float, default=0.08, help="cosine that BM25's best is worth in the target")
    parser.add_argument("--bonus", type=float, default=1.5, help="how far the passage that belongs is lifted, in logits")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--budget", type=int, default=4096, help="tokens a step")
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--binary", type=float, default=0.15, help="weight of the binary loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--evaluate-every", type=int, default=500)
    parser.add_argument("--evaluate-groups", type=int, default=100)
    args = parser.parse_args()
    if args.processes == 1:
        run(0, args, "")
        return
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, (args, f"file://{folder}/store"), nprocs=args.processes)


def run(rank: int, args: argparse.Namespace, store: str) -> None:
    """One process: its share of every batch; gradients are summed, so all hold the same weights."""
    torch.set_num_threads(1)
    if store:
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=args.processes)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    data, valid = (pickle.loads((args.work / f"{name}.pkl").read_bytes()) for name in (args.data, args.valid))
    model = AutoModelForSequenceClassification.from_pretrained(args.base, dtype=torch.float32).train()
    decay = [p for n, p in model.named_parameters() if p.dim() == 2 and "embeddings" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.dim() == 2 and "embeddings" not in n)]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98), fused=True)

    def rate(step: int) -> float:
        if step < args.warmup:
            return (step + 1) / args.warmup
        return 0.02 + 0.98 * max(0.0, (args.steps - step) / (args.steps - args.warmup))

    lean = Lean(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    used = list(model.parameters())
    soft = Soft(args.temperature, args.lexical, args.bonus)
    stream = batches(data, rng, args.budget, args.negatives, args.limit, soft)
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "log.jsonl").open("w") if rank == 0 else None
    start, tokens, losses, right, seen = time.time(), 0, [], 0, 0
    last = min(args.stop or args.steps, args.steps)
    for step in range(1, last + 1):
        rows, wanted = next(stream)
        groups, size = len(wanted), args.negatives + 1
        # Dealt out by length, there and back again, so that no process waits for another.
        lengths = [sum(map(len, rows[g * size : (g + 1) * size])) for g in range(groups)]
        dealt = sorted(range(groups), key=lambda g: -lengths[g])
        mine = [g for n, g in enumerate(dealt) if n % (2 * args.processes) in (rank, 2 * args.processes - 1 - rank)]
        logits = lean([row for g in mine for row in rows[g * size : (g + 1) * size]]).view(len(mine), size)
        loss = F.cross_entropy(logits, wanted[mine], reduction="sum") / groups
        first = torch.zeros_like(logits)
        first[:, 0] = 1
        total = loss + args.binary * F.binary_cross_entropy_with_logits(logits, first, reduction="sum") / (groups * size)
        total.backward()
        figures = torch.tensor([loss.item(), float((logits.argmax(1) == 0).sum())])
        if store:
            flat = torch.cat([figures, *(p.grad.view(-1) for p in used)])
            dist.all_reduce(flat)
            figures, *grads = flat.split([2, *(p.numel() for p in used)])
            for p, grad in zip(used, grads):
                p.grad.copy_(grad.view_as(p))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        tokens += sum(map(len, rows))
        losses.append(figures[0].item())
        right += int(figures[1])
        seen += groups
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"loss is {losses[-1]} at step {step}")
        if log is None:
            continue
        if step % 25 == 0 or step == last:
            row = {"step": step, "loss": round(float(np.mean(losses)), 4), "accuracy": round(right / seen, 4), "tokens": tokens, "seconds": round(time.time() - start)}
            losses, right, seen = [], 0, 0
            if step % 100 == 0 or step == last:
                save(model, args.base, args.out)
            if step % args.evaluate_every == 0 or step == last:
                row["valid"] = evaluate(lean, valid, args.evaluate_groups, args.limit)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if step % 100 == 0 or step == last or step <= 50:
                print(json.dumps(row), flush=True)
    if store:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
