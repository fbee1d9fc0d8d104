"""Train the cross-encoder: softmax over one passage and its negatives, plus a little binary loss so that scores mean something.

    train.py --work WORK --base WORK/base --out WORK/model --steps 3000 [--lr 3e-4] [--threads 1]

`--steps` fixes the length and with it the learning-rate schedule; `--stop N` ends a run after N steps of that schedule,
so `--stop 20` repeats the first steps of the real run in a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
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


def target(bm25: list[float], lexical: float, bonus: float) -> torch.Tensor:
    """The passage that belongs first, always above the rest; those in BM25's order, the softer the larger `lexical`."""
    if not lexical:
        return torch.tensor([1.0] + [0.0] * (len(bm25) - 1))
    z = torch.tensor(bm25) * (lexical / max(*bm25, 1e-6))
    z[0] = z.max() + bonus
    return z.softmax(0)


def read(path: Path, names: str, others: float, rng: random.Random) -> dict:
    """Groups of several files as one; of languages other than English and Chinese, only a share."""
    passages: list = []
    groups: list = []
    for name in names.split(","):
        part = pickle.loads((path / f"{name}.pkl").read_bytes())
        shift = len(passages)
        passages += part["passages"]
        for group in part["groups"]:
            if others == 1 or group["lang"] in ("en", "zh") or rng.random() < others:
                groups.append({**group, "p": [x + shift for x in group["p"]]})
    return {"passages": passages, "groups": groups}


def batches(data: dict, rng: random.Random, budget: int, k: int, limit: int, lexical: float, bonus: float) -> Iterator[tuple[list[list[int]], torch.Tensor]]:
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
            targets.append(target([group["s"][c] for c in chosen], lexical, bonus))
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

    def strip(self, ids: torch.Tensor) -> torch.Tensor:
        half = torch.bfloat16
        roberta = self.model.roberta
        e = roberta.embeddings
        batch, width = ids.shape
        x = F.embedding(ids, e.word_embeddings.weight) + (e.position_embeddings.weight[2 : width + 2] + e.token_type_embeddings.weight[0])
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
        out, at = [], 0
        while at < len(order):
            end = at + 1
            while end < len(order) and (end - at + 1) * len(rows[order[end]]) <= tokens:
                end += 1
            out.append(self.strip(collate([rows[i] for i in order[at:end]])))
            at = end
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
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to(torch.float16).contiguous() for k, v in model.state_dict().items() if "position_ids" not in k}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(base / name, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="stage1", help="names of group files, joined by commas")
    parser.add_argument("--others", type=float, default=1.0, help="share kept of languages other than English and Chinese")
    parser.add_argument("--lexical", type=float, default=0.0, help="how far BM25's order of the negatives softens the target")
    parser.add_argument("--bonus", type=float, default=1.5, help="how far the passage that belongs stands above BM25's best, in logits")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--constant", action="store_true", help="no decay after the warm-up: a stage before the last")
    parser.add_argument("--budget", type=int, default=4096, help="tokens a step")
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--binary", type=float, default=0.15, help="weight of the binary loss")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate-every", type=int, default=500)
    parser.add_argument("--evaluate-groups", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    data = read(args.work, args.data, args.others, rng)
    valid = pickle.loads((args.work / "valid.pkl").read_bytes())
    model = AutoModelForSequenceClassification.from_pretrained(args.base, dtype=torch.float32).train()
    decay = [p for n, p in model.named_parameters() if p.dim() == 2 and "embeddings" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.dim() == 2 and "embeddings" not in n)]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98), fused=True)

    def rate(step: int) -> float:
        if step < args.warmup:
            return (step + 1) / args.warmup
        if args.constant:
            return 1.0
        return 0.02 + 0.98 * max(0.0, (args.steps - step) / (args.steps - args.warmup))

    lean = Lean(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    stream = batches(data, rng, args.budget, args.negatives, args.limit, args.lexical, args.bonus)
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "log.jsonl").open("w")
    start, tokens, window, right, seen = time.time(), 0, [], 0, 0
    last = min(args.stop or args.steps, args.steps)
    for step in range(1, last + 1):
        rows, wanted = next(stream)
        groups = len(wanted)
        logits = lean(rows).view(groups, -1)
        loss = F.cross_entropy(logits, wanted)
        first = torch.zeros_like(logits)
        first[:, 0] = 1
        total = loss + args.binary * F.binary_cross_entropy_with_logits(logits, first)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        tokens += sum(map(len, rows))
        window.append(loss.item())
        right += int((logits.argmax(1) == 0).sum())
        seen += groups
        if not math.isfinite(window[-1]):
            raise SystemExit(f"loss is {window[-1]} at step {step}")
        if step % 25 == 0 or step == last:
            row = {"step": step, "loss": round(float(np.mean(window)), 4), "accuracy": round(right / seen, 4), "tokens": tokens, "seconds": round(time.time() - start)}
            window, right, seen = [], 0, 0
            if step % 100 == 0 or step == last:
                save(model, args.base, args.out)
            if step % args.evaluate_every == 0 or step == last:
                row["valid"] = evaluate(lean, valid, args.evaluate_groups, args.limit)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if step % 100 == 0 or step == last or step <= 50:
                print(json.dumps(row), flush=True)
    save(model, args.base, args.out)


if __name__ == "__main__":
    main()
