"""Distil the cross-encoder: cross entropy of a passage and its negatives against a softened target (`target` says which), plus a little
binary loss so that scores mean something.

    train.py --data WORK/data.npz --teacher WORK/base/teacher.npz --out OUT [--shape six] [--device auto] [--seconds 170] [--seeds 1,2,3] [--resume]

One run is a trunk, at a constant rate, and from its end a branch for each of `--seeds`, which differ in what they see and end at a
rate of zero. The branches and their mean are measured on held-out sections, and the best one is kept. The length is `--steps`, or what
fits `--seconds` at the speed of the first steps. Every step's random numbers follow from the seed and the step alone, so a run that
goes on from its checkpoint (`--resume`) does as it would have done. Several `--shape`s are trained one after the other, each in its `--seconds`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import mine
import model
import numpy as np
import torch
from mine import Data, Groups
from model import Shape, Student, _tail, is_matrix, load_teacher, start
from safetensors.torch import save
from torch.nn import functional as F

SHAPES = {
    "six": Shape(),
    "four": Shape((0, 2, 3, 5), 768, narrow=True, eight_bits=False),
    "four-wide": Shape((0, 2, 3, 5), 768),
    "eight": Shape((0, 1, 2, 3, 4, 5, 7, 9), 768),
    "nano": Shape((0, 1), 64),
}
KIND_SHARE = (0.35, 0.43, 0.22)  # sentences, paragraphs, long passages
NEGATIVES = (3, 2, 2)  # BM25's, the teacher's, random ones
PART = 15_500_000  # bytes of a file


def target(s: torch.Tensor, t: torch.Tensor, args: argparse.Namespace) -> torch.Tensor:
    """Which passage of a group should win, and by how much: the teacher's cosine plus BM25's view, the own passage (the first) lifted.

    Each of the two ranks better with the other's help (a bi-encoder misses words, BM25 misses meanings); the sum is what is distilled.
    """
    z = (t + args.lexical * s / s.max(1, keepdim=True).values.clamp(min=1e-6)) / args.temperature
    z[:, 0] += args.bonus
    return z.softmax(1)


class Run:
    """One shape's training."""

    def __init__(self, name: str, data: Data, groups: Groups, teacher: dict[str, torch.Tensor], args: argparse.Namespace, seconds: float, log: Callable[[dict[str, Any]], None]) -> None:
        compiled = name.endswith("*")
        name = name.rstrip("*")
        self.name, self.args, self.seconds, self.log, self.groups = name, args, seconds, log, groups
        self.began = time.time()
        self.shape = SHAPES[name]
        self.device = data.device
        self.data = data.narrow(teacher["spelled"], teacher["spelled_lengths"]) if self.shape.narrow else data
        self.seeds = [int(x) for x in args.seeds.split(",")]
        self.student = Student(start({k: v.cpu() for k, v in teacher.items()}, self.shape, self.seeds[0]), self.shape).to(self.device)
        if compiled and self.device.type == "cuda":
            self.student.tail = torch.compile(self.student.tail, dynamic=True)
        held = data.held.to(self.device)
        self.trained = (~held).nonzero()[:, 0]
        self.trained = self.trained[(groups.at[self.trained] >= 0).any(1)]
        valid = held[groups.query].nonzero()[:, 0]
        self.valid = valid[torch.randperm(len(valid), generator=torch.Generator().manual_seed(5)).to(self.device)]
        self.steps = args.steps
        self.orders: dict[tuple[int, int], torch.Tensor] = {}
        self.folder = Path(args.out) / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.best = -1.0
        self.kept = {k: v.detach().clone() for k, v in self.student.state_dict().items()}

    def optimizer(self) -> torch.optim.Optimizer:
        named = self.student.weights()
        decay = [p for n, p in named.items() if is_matrix(n, p) and "embeddings" not in n]
        rest = [p for n, p in named.items() if not (is_matrix(n, p) and "embeddings" not in n)]
        return torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}], lr=self.args.lr, betas=(0.9, 0.98), eps=1e-8,
                                 fused=self.device.type == "cuda")

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """The groups of an epoch: every query once, with a passage of one of its kinds."""
        if (seed, epoch) not in self.orders:
            self.orders = {key: value for key, value in self.orders.items() if key == (seed, epoch - 1)}
            generator = torch.Generator().manual_seed(seed * 1000 + epoch)
            queries = self.trained[torch.randperm(len(self.trained), generator=generator).to(self.device)]
            rows = self.groups.at[queries]
            luck = torch.rand(rows.shape, generator=generator).to(self.device)
            keys = torch.log(torch.tensor(KIND_SHARE, device=self.device)) - torch.log(-torch.log(luck.clamp(1e-9, 1 - 1e-7)))
            pick = keys.masked_fill(rows < 0, -1e9).argmax(1)
            self.orders[seed, epoch] = rows.gather(1, pick[:, None])[:, 0]
        return self.orders[seed, epoch]

    def rows(self, seed: int, step: int) -> torch.Tensor:
        """The groups of a step."""
        size, total = self.args.groups, len(self.trained)
        parts, at, end = [], step * size, (step + 1) * size
        while at < end:
            epoch, first = divmod(at, total)
            parts.append(self.order(seed, epoch)[first : first + end - at])
            at += len(parts[-1])
        return torch.cat(parts)

    def step(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """(loss, how many own passages came first, tokens) of a step; the gradients are there afterwards."""
        g, args = self.groups, self.args
        rows = self.rows(seed, step)
        generator = torch.Generator(self.device).manual_seed(seed * 10_000_000 + step)
        columns = mine.sample(g, rows, NEGATIVES, generator)
        wanted = target(g.s[rows].gather(1, columns), g.t[rows].gather(1, columns), args)
        passages = torch.cat([g.positive[rows][:, None], g.negatives[rows].long().gather(1, (columns[:, 1:] - 1))], 1)
        # A small pool may not have had enough negatives; what is missing takes no part.
        absent = passages < 0
        width = passages.shape[1]
        packed = self.data.pack(g.query[rows].repeat_interleave(width), passages.clamp(min=0).reshape(-1))
        logits = self.student(packed).view(-1, width).masked_fill(absent, -30.0)
        wanted = wanted.masked_fill(absent, 0.0)
        wanted = wanted / wanted.sum(1, keepdim=True)
        loss = -(wanted * logits.log_softmax(1)).sum(1).mean()
        first = torch.zeros_like(logits)
        first[:, 0] = 1
        binary = F.binary_cross_entropy_with_logits(logits, first, reduction="none").masked_fill(absent, 0.0).mean()
        (loss + args.binary * binary).backward()
        return loss.detach(), (logits.argmax(1) == 0).sum().detach(), len(packed.ids)

    def train(self, phase: str, seed: int, first: int, last: int, rate: Callable[[int], float], optimizer: torch.optim.Optimizer, until: float) -> int:
        """Steps `first` to `last`; returns the step it came to: less than `last` only if the time ran out."""
        started, tokens, seen, timed = time.time(), 0, 0, 0.0
        losses = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device, dtype=torch.long)
        every = self.args.log_every
        step = first
        kept: dict[str, torch.Tensor] | None = None
        while step < (last or self.steps or 10**9):
            for group in optimizer.param_groups:
                group["lr"] = self.args.lr * rate(step)
            loss, correct, size = self.step(seed, step)
            torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses += loss
            right += correct
            tokens += size
            self.tokens += size
            seen += 1
            step += 1
            if not self.steps and step in (30, 90):
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                if step == 30:
                    timed = time.time()
                else:
                    self.plan((time.time() - timed) / 60 if timed else (time.time() - started) / seen)
                    last = self.trunk_steps
            if step % every == 0 or step == last:
                value = losses.item() / seen
                if not math.isfinite(value):
                    self.log({"shape": self.name, "phase": phase, "step": step, "loss": str(value), "again from the last weights, at half the rate": self.args.lr / 2})
                    if kept is None or self.args.lr < 1e-5:
                        raise SystemExit(f"loss is {value} at step {step}")
                    self.args.lr /= 2
                    self.student.load_state_dict(kept)
                    optimizer.load_state_dict(self.optimizer().state_dict())
                    losses.zero_()
                    right.zero_()
                    seen = 0
                    continue
                kept = {k: v.detach().clone() for k, v in self.student.state_dict().items()}
                self.log({"shape": self.name, "phase": phase, "seed": seed, "step": step, "loss": round(value, 4), "accuracy": round(right.item() / seen / self.args.groups, 4),
                          "rate": round(self.args.lr * rate(step - 1), 7), "tokens": self.tokens, "seconds": round(time.time() - self.began, 1),
                          "tokens/s": round(tokens / (time.time() - started))})
                losses.zero_()
                right.zero_()
                seen = 0
            if step % self.args.save_every == 0:
                self.checkpoint(phase, seed, step, optimizer)
            if step == self.args.stop or time.time() > until:
                self.checkpoint(phase, seed, step, optimizer)
                break
        return step

    def plan(self, pace: float) -> None:
        """How many steps fit the time, at so many seconds each."""
        rest = self.seconds - (time.time() - self.began) - self.args.reserve * (len(self.seeds) + 1)
        self.steps = 90 + max(1, int(rest / pace))
        self.log({"shape": self.name, "steps": self.steps, "pace": round(pace, 4)})

    @property
    def trunk_steps(self) -> int:
        return max(1, round(self.steps * self.args.trunk))

    @property
    def branch_steps(self) -> int:
        return max(1, (self.steps - self.trunk_steps) // len(self.seeds))

    def checkpoint(self, phase: str, seed: int, step: int, optimizer: torch.optim.Optimizer, name: str = "checkpoint") -> None:
        path = self.folder / f"{name}.pt"
        torch.save({"phase": phase, "seed": seed, "step": step, "steps": self.steps, "tokens": self.tokens, "student": self.student.state_dict(),
                    "optimizer": optimizer.state_dict()}, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def restore(self, name: str, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        state = torch.load(self.folder / f"{name}.pt", map_location=self.device, weights_only=True)
        self.student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        self.steps, self.tokens = state["steps"], state["tokens"]
        return dict(state)

    def try_forms(self) -> None:
        """One step, by simpler means if the fast ones fail on this card."""
        for form in ("as asked", "not compiled", "padded"):
            if form == "not compiled":
                self.student.tail = model._tail
            elif form == "padded":
                model.FORMS["attention"] = "padded"
            try:
                loss, *_ = self.step(self.seeds[0], 0)
                norm = torch.nn.utils.get_total_norm([p.grad for p in self.student.parameters()])
                mine.finish(self.device)
                if self.device.type == "cuda" and model.FORMS["attention"] == "varlen":  # against plain attention
                    self.student.zero_grad(set_to_none=True)
                    model.FORMS["attention"] = "padded"
                    plain, *_ = self.step(self.seeds[0], 0)
                    plain_norm = torch.nn.utils.get_total_norm([p.grad for p in self.student.parameters()])
                    self.log({"shape": self.name, "loss": loss.item(), "padded": plain.item(), "gradient": norm.item(), "padded gradient": plain_norm.item()})
                    if abs(norm - plain_norm) < 0.05 * plain_norm and abs(loss - plain) < 0.02 * abs(plain):
                        model.FORMS["attention"] = "varlen"
                break
            except Exception as error:
                self.log({"shape": self.name, "failed": form, "error": repr(error)[:500]})
                if form == "padded":
                    raise
        self.student.zero_grad(set_to_none=True)

    def all(self) -> None:
        """The trunk, the branches, and their mean."""
        self.tokens = 0
        self.try_forms()
        until = self.began + self.seconds
        optimizer = self.optimizer()
        at: dict[str, Any] = {"phase": "trunk", "seed": self.seeds[0], "step": 0}
        if self.args.resume and (self.folder / "checkpoint.pt").exists():
            at = self.restore("checkpoint", optimizer)
            self.log({"shape": self.name, "resumed": at["phase"], "seed": at["seed"], "step": at["step"]})
        warm = self.args.warmup
        if at["phase"] == "trunk":
            step = self.train("trunk", self.seeds[0], at["step"], self.trunk_steps if self.steps else 0, lambda n: min(1.0, (n + 1) / warm), optimizer, self.began + 0.75 * self.seconds)
            if step == self.args.stop:
                return
            self.checkpoint("trunk", self.seeds[0], step, optimizer, "trunk")
            at = {"phase": "branch", "seed": self.seeds[0], "step": 0}
            self.measure("trunk")
        ends: list[dict[str, torch.Tensor]] = []
        count = self.branch_steps
        for n, seed in enumerate(self.seeds):
            if seed != at["seed"] and n < self.seeds.index(at["seed"]):
                ends.append(torch.load(self.folder / f"branch-{seed}.pt", map_location=self.device, weights_only=True))
                continue
            if time.time() > until and ends:
                break
            begin = at["step"] if seed == at["seed"] else 0
            if begin == 0:
                optimizer = self.optimizer()
                self.restore("trunk", optimizer)
            step = self.train("branch", seed, begin, count, lambda n: max(0.01, 1 - n / count), optimizer, until)
            if step == self.args.stop:
                return
            ends.append({k: v.detach().clone() for k, v in self.student.state_dict().items()})
            torch.save(ends[-1], self.folder / f"branch-{seed}.pt")
            self.measure(f"branch {seed}")
        if len(ends) > 1:
            self.student.load_state_dict({k: torch.stack([e[k] for e in ends]).mean(0) for k in ends[0]})
            self.measure("mean of the branches")

    @torch.no_grad()
    def measure(self, what: str) -> None:
        """Mean reciprocal rank of the own passage of held-out queries among all its negatives; the best weights so far are written."""
        found: dict[str, list[float]] = defaultdict(list)
        g = self.groups
        compiled, self.student.tail = self.student.tail, _tail
        for part in mine.batches_of(min(self.args.evaluate, len(self.valid)), max(1, self.args.groups // 4)):
            rows = self.valid[part]
            passages = torch.cat([g.positive[rows][:, None], g.negatives[rows].long()], 1)
            absent = passages < 0
            width = passages.shape[1]
            logits = self.student(self.data.pack(g.query[rows].repeat_interleave(width), passages.clamp(min=0).reshape(-1))).view(-1, width)
            ranks = {"": logits, "bm25 ": g.s[rows], "target ": target(g.s[rows], g.t[rows], argparse.Namespace(**{**vars(self.args), "bonus": 0.0}))}
            names = list(zip(g.kind[rows].tolist(), self.data.q_language[g.query[rows]].tolist(), self.data.q_kind[g.query[rows]].tolist()))
            for label, scores in ranks.items():
                rank = 1 + ((scores[:, 1:] >= scores[:, :1]) & ~absent[:, 1:]).sum(1)
                for value, (kind, language, query) in zip((1 / rank).tolist(), names):
                    for key in ("all", ("sentences", "paragraphs", "long")[kind], self.data.languages[language], self.data.kinds[query]):
                        found[f"{label}{key}"].append(value)
        self.student.tail = compiled
        figures = {key: round(sum(v) / len(v), 4) for key, v in sorted(found.items())}
        score = sum(figures.get(x, 0.0) for x in ("sentences", "paragraphs", "long")) / 3
        better = score > self.best
        self.log({"shape": self.name, "measured": what, "score": round(score, 4), "kept": better, "seconds": round(time.time() - self.began, 1), "mrr": figures})
        if better:
            self.best = score
            self.kept = {k: v.detach().clone() for k, v in self.student.state_dict().items()}
            self.write()

    @torch.no_grad()
    def collections(self, path: Path, vocabulary: str, deadline: float) -> None:
        """Whole collections reranked by the weights that were kept, as far as the time goes."""
        self.student.load_state_dict(self.kept)
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        figures = []
        for name in sorted({x.split("/")[0] for x in arrays}, key=lambda x: (x == "cmrc2018-zh", x)):
            c = {part: arrays[f"{name}/{part}"] for part in ("candidates", "gains", "ideal")}
            c |= {part: arrays[f"{name}/{vocabulary}/{part}"] for part in ("q_tokens", "q_length", "d_tokens", "d_length")}
            if time.time() > deadline:
                break
            scores, pairs, seconds = evaluate.rank(self.student, c, self.device, 200_000)
            ndcg, rr = evaluate.measures(scores, c)
            self.log({"shape": self.name, "collection": name, "queries": len(ndcg), "ndcg@10": round(float(ndcg.mean()), 4), "mrr@10": round(float(rr.mean()), 4),
                      "bm25": round(float(arrays[f"{name}/base"].mean()), 4), "pairs/s": round(pairs / seconds)})
            figures.append({"collection": name, "ndcg@10": [round(float(x), 4) for x in ndcg]})
            (Path(self.args.out) / f"{self.name}-collections.json").write_text(json.dumps(figures))

    def write(self) -> None:
        """The weights as a safetensors file, in parts."""
        tensors = self.student.stored()
        data = save({name: tensor for name, tensor in tensors.items()}, metadata={"format": "pt"})
        for n, at in enumerate(range(0, len(data), PART)):
            path = Path(self.args.out) / f"{self.name}.{n}"
            path.with_suffix(".part").write_bytes(data[at : at + PART])
            os.replace(path.with_suffix(".part"), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mined", type=Path, help="where groups are kept between runs (default: OUT/mined.pt)")
    parser.add_argument("--shape", default="six", help=f"of {', '.join(SHAPES)}; several joined by commas; with * at its end, layers go through torch.compile")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", default="3600", help="for each shape; several joined by commas")
    parser.add_argument("--until", type=float, default=0, help="Unix time by which all is over; --seconds are then shares of what is left")
    parser.add_argument("--mining-seconds", type=float, default=1e9)
    parser.add_argument("--collections", type=Path, help="collections to rank at the end, as evaluate.py --pack wrote them")
    parser.add_argument("--collections-seconds", type=float, default=40)
    parser.add_argument("--steps", type=int, default=0, help="of the trunk and all branches (default: what fits the time)")
    parser.add_argument("--stop", type=int, default=0, help="end after so many steps of a phase, with a checkpoint: to repeat the first ones, or to go on later")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--trunk", type=float, default=0.55, help="share of the steps before the branches")
    parser.add_argument("--groups", type=int, default=64, help="queries a step, with eight passages each")
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.02, help="cosine for one logit of the target")
    parser.add_argument("--lexical", type=float, default=0.08, help="cosine that BM25's best is worth in the target")
    parser.add_argument("--bonus", type=float, default=2.0, help="how far the passage that belongs is lifted, in logits")
    parser.add_argument("--binary", type=float, default=0.15, help="weight of the binary loss")
    parser.add_argument("--evaluate", type=int, default=3000, help="held-out groups to measure on")
    parser.add_argument("--reserve", type=float, default=5.0, help="seconds that a measurement takes")
    parser.add_argument("--save-every", type=int, default=1000)
    parser.add_argument("--log-every", type=int, default=50)
    args = parser.parse_args()
    began = time.time()
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "log.jsonl").open("a") as file:

        def log(row: dict[str, Any]) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()
            short = {k: v for k, v in row.items() if k != "mrr"} | {k: v for k, v in row.get("mrr", {}).items() if k.split()[-1] in ("all", "long", "rare", "en", "zh")}
            print(json.dumps(short), flush=True)

        data = Data(args.data, device)
        teacher = load_teacher(str(args.teacher), device)
        mined = args.mined or args.out / "mined.pt"
        if mined.exists():
            groups = Groups(**{k: v.to(device) for k, v in torch.load(mined, weights_only=True).items()})
        else:
            groups = mine.mine(data, teacher, 0, seconds=args.mining_seconds)
            torch.save(vars(groups), mined)
        log({"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "torch": torch.__version__, "groups": len(groups.query),
             "held out": int(data.held.sum()), "seconds": round(time.time() - began, 1)})
        seconds = [float(x) for x in args.seconds.split(",")]
        names = args.shape.split(",")
        seconds += seconds[-1:] * (len(names) - len(seconds))
        runs = []
        rate = args.lr
        for n, name in enumerate(names):
            share = seconds[n]
            if args.until:
                share *= max(10.0, args.until - args.collections_seconds - time.time()) / sum(seconds[n:])
            args.lr = rate
            runs.append(Run(name, data, groups, teacher, args, share, log))
            runs[-1].all()
        for n, run in enumerate(runs) if args.collections else ():
            now = time.time()
            run.collections(args.collections, "narrow" if run.shape.narrow else "wide", now + (args.until - now) / (len(runs) - n) - 5 if args.until else now + 1e9)


if __name__ == "__main__":
    main()
