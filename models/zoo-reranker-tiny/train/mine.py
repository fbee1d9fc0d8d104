"""Groups out of passages and queries: for every query and kind of passage, hard and random negatives with BM25's scores and the teacher's cosines.

All of it runs where the tensors are: on a card in seconds, on a CPU at a small size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import model
import numpy as np
import torch

LEXICAL, DENSE, RANDOM = 28, 12, 8
"""Negatives kept of each query: BM25's top hits, the teacher's, and random ones of the same language and kind."""
QUERY_LIMIT = 96
SAME = 0.97  # cosine of two passages that say the same: no negatives of one another


class Data:
    """What build_data.py wrote, on a device. `narrow` writes every piece by those of the smaller vocabulary."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.device = device
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        self.languages, self.kinds = arrays["languages"].tolist(), arrays["kinds"].tolist()
        self.held = torch.from_numpy(arrays["query_held"])
        self.ask, self.tell = (torch.from_numpy(arrays[x].astype(np.int64)).to(device) for x in ("ask", "tell"))

        def put(name: str) -> torch.Tensor:
            return torch.from_numpy(arrays[name].astype(np.int64)).to(device)

        self.tokens, self.p_start, self.p_length = put("tokens"), put("passage_start"), put("passage_length")
        self.p_language, self.p_kind = put("passage_language"), put("passage_kind")
        self.q_tokens, self.q_length = put("query_tokens"), put("query_length")
        self.q_start = self.q_length.cumsum(0) - self.q_length
        self.q_language, self.q_kind, self.q_passages = put("query_language"), put("query_kind"), put("query_passages")
        self.anchor = put("anchor")
        self.vocabulary = int(max(self.tokens.max(), self.q_tokens.max())) + 1

    def narrow(self, spelled: torch.Tensor, lengths: torch.Tensor) -> Data:
        """The same texts over another vocabulary: `spelled` holds the new pieces of every old one, `lengths` of them each."""
        starts = lengths.cumsum(0) - lengths
        other = Data.__new__(Data)
        other.__dict__.update(self.__dict__)

        def rewrite(tokens: torch.Tensor, start: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            count = lengths[tokens]
            borders = torch.cat([count.new_zeros(1), count.cumsum(0)])
            owner = torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), count)
            at = torch.arange(len(owner), device=tokens.device) - borders[owner]
            return spelled[starts[tokens[owner]] + at], borders[start], borders[start + length] - borders[start]

        other.tokens, other.p_start, other.p_length = rewrite(self.tokens, self.p_start, self.p_length)
        other.q_tokens, other.q_start, other.q_length = rewrite(self.q_tokens, self.q_start, self.q_length)
        return other

    def pack(self, queries: torch.Tensor, passages: torch.Tensor, limit: int = 512) -> model.Packed:
        """`<s> query </s></s> passage </s>` for each pair."""
        ql = self.q_length[queries].clamp(max=QUERY_LIMIT)
        pl = torch.minimum(self.p_length[passages], limit - 4 - ql)
        total = ql + pl + 4
        cu = torch.cat([total.new_zeros(1), total.cumsum(0)])
        size, longest = torch.stack([cu[-1], total.max()]).tolist()
        row = torch.repeat_interleave(torch.arange(len(total), device=self.device), total, output_size=size)
        at = torch.arange(size, device=self.device) - cu[row]
        ql, total = ql[row], total[row]
        query = self.q_tokens[(self.q_start[queries][row] + at - 1).clamp(0, len(self.q_tokens) - 1)]
        passage = self.tokens[(self.p_start[passages][row] + at - 3 - ql).clamp(0, len(self.tokens) - 1)]
        ids = torch.where(at <= ql, query, passage)
        ids = torch.where((at == ql + 1) | (at == ql + 2) | (at == total - 1), 2, ids)
        ids = torch.where(at == 0, 0, ids)
        return model.Packed(ids, at, cu.int(), longest)

    def pack_one(self, tokens: torch.Tensor, prefix: torch.Tensor, start: torch.Tensor, length: torch.Tensor) -> model.Packed:
        """`<s> prefix text </s>` for each text."""
        total = length.clamp(max=510 - len(prefix)) + len(prefix) + 2
        cu = torch.cat([total.new_zeros(1), total.cumsum(0)])
        size, longest = torch.stack([cu[-1], total.max()]).tolist()
        row = torch.repeat_interleave(torch.arange(len(total), device=self.device), total, output_size=size)
        at = torch.arange(size, device=self.device) - cu[row]
        ids = tokens[(start[row] + at - 1 - len(prefix)).clamp(0, len(tokens) - 1)]
        ids = torch.where(at <= len(prefix), prefix[(at - 1).clamp(0, len(prefix) - 1)], ids)
        ids = torch.where(at == 0, 0, torch.where(at == total[row] - 1, 2, ids))
        return model.Packed(ids, at, cu.int(), longest)


@dataclass(frozen=True)
class Groups:
    """A row a query and kind of passage. `s` and `t` are BM25's scores and cosines, the own passage's first."""

    query: torch.Tensor  # (groups,)
    kind: torch.Tensor  # (groups,): of passage
    positive: torch.Tensor  # (groups,)
    negatives: torch.Tensor  # (groups, LEXICAL + DENSE + RANDOM)
    s: torch.Tensor
    t: torch.Tensor
    at: torch.Tensor  # (queries, 3): a query's row for each kind, or -1


def embed_all(data: Data, teacher: Mapping[str, torch.Tensor], tokens: torch.Tensor, prefix: torch.Tensor, start: torch.Tensor, length: torch.Tensor,
              budget: int) -> torch.Tensor:
    out = torch.zeros(len(start), teacher["emb.ln.w"].numel(), device=data.device)
    order = torch.argsort(length, stable=True)
    sizes = (length[order] + 6).cumsum(0)
    at = 0
    edges = torch.searchsorted(sizes, torch.arange(1, int(sizes[-1]) // budget + 2, device=sizes.device) * budget).tolist()
    for end in [*edges, len(order)]:
        part = order[at : max(end, at)]
        at = max(end, at)
        if len(part):
            out[part] = model.embed(teacher, data.pack_one(tokens, prefix, start[part], length[part])).to(out.dtype)
    return out


def index_of(data: Data, passages: torch.Tensor) -> torch.Tensor:
    """Sparse (passages, vocabulary): BM25's weights, k1 0.9, b 0.4."""
    lengths = data.p_length[passages]
    row = torch.repeat_interleave(torch.arange(len(passages), device=data.device), lengths)
    at = torch.arange(len(row), device=data.device) - (lengths.cumsum(0) - lengths)[row]
    keys, counts = torch.unique(row * data.vocabulary + data.tokens[data.p_start[passages][row] + at], return_counts=True)
    row, term, tf = keys // data.vocabulary, keys % data.vocabulary, counts.float()
    df = torch.bincount(term, minlength=data.vocabulary).float()
    idf = torch.log(1 + (len(passages) - df + 0.5) / (df + 0.5))
    norm = 0.9 * (0.6 + 0.4 * lengths.float() / lengths.float().mean())
    values = idf[term] * tf * 1.9 / (tf + norm[row])
    crow = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=len(passages)).cumsum(0)])
    return torch.sparse_csr_tensor(crow, term, values, (len(passages), data.vocabulary))


def best(scores: torch.Tensor, blocked: torch.Tensor | None, count: int) -> torch.Tensor:
    """(columns, count) rows of the highest scores in every column."""
    if blocked is not None:
        scores = scores.masked_fill(blocked, -1e9)
    return scores.topk(count, dim=0).indices.T


@dataclass(frozen=True)
class Pool:
    """The passages of one kind and language, among which its queries' negatives are looked for."""

    kind: int
    passages: torch.Tensor
    index: torch.Tensor
    vectors: torch.Tensor


def mine(data: Data, teacher: Mapping[str, torch.Tensor], seed: int, block: int = 512, budget: int = 400_000, seconds: float = 1e9) -> Groups:
    """Groups for all queries, or for as many as `seconds` allow: blocks of queries come in random order."""
    began = time.time()
    luck = torch.Generator().manual_seed(seed)
    generator = torch.Generator(data.device).manual_seed(seed)
    # Of sentences, those that some query was made from and a third of the others.
    used = data.p_kind != 0
    used |= (torch.arange(len(used), device=data.device) * 2654435761 % 3) == 0
    used[data.q_passages[:, 0][data.q_passages[:, 0] >= 0]] = True
    kept = used.nonzero()[:, 0]
    ep = torch.zeros(len(used), teacher["emb.ln.w"].numel(), device=data.device)
    ep[kept] = embed_all(data, teacher, data.tokens, data.tell, data.p_start[kept], data.p_length[kept], budget)
    eq = embed_all(data, teacher, data.q_tokens, data.ask, data.q_start, data.q_length, budget)
    finish(data.device)
    print(json.dumps({"embedded": len(kept) + len(eq), "seconds": round(time.time() - began, 1)}), flush=True)
    jobs: list[tuple[Pool, torch.Tensor]] = []
    for kind in range(3):
        for language in range(len(data.languages)):
            passages = (used & (data.p_kind == kind) & (data.p_language == language)).nonzero()[:, 0]
            queries = ((data.q_language == language) & (data.q_passages[:, kind] >= 0)).nonzero()[:, 0]
            if len(passages) < LEXICAL + DENSE + 24 or not len(queries):
                continue
            pool = Pool(kind, passages, index_of(data, passages), ep[passages])
            jobs += [(pool, q) for q in queries.split(block)]
    finish(data.device)
    print(json.dumps({"blocks": len(jobs), "seconds": round(time.time() - began, 1)}), flush=True)
    local = torch.full((len(data.p_start),), -1, device=data.device)
    parts: list[tuple[torch.Tensor, ...]] = []
    for n, at in enumerate(torch.randperm(len(jobs), generator=luck).tolist()):
        parts.append(mine_block(data, *jobs[at], local, ep, eq, generator))
        if n % 16 == 15:
            finish(data.device)
            if time.time() - began > seconds:
                print(json.dumps({"out of time after": n + 1}), flush=True)
                break
    query, kinds, positive, negatives, s, t = (torch.cat(x) for x in zip(*parts))
    at = torch.full((len(data.q_start), 3), -1, device=data.device)
    at[query, kinds] = torch.arange(len(query), device=data.device)
    finish(data.device)
    print(json.dumps({"groups": len(query), "seconds": round(time.time() - began, 1)}), flush=True)
    return Groups(query, kinds, positive, negatives, s, t, at)


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def mine_block(data: Data, pool: Pool, q: torch.Tensor, local: torch.Tensor, ep: torch.Tensor, eq: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    passages = pool.passages
    local[passages] = torch.arange(len(passages), device=data.device)
    starts, ends = data.p_start[passages], data.p_start[passages] + data.p_length[passages]
    positive = data.q_passages[q, pool.kind]
    own = local[positive]
    columns = torch.arange(len(q), device=data.device)
    owner = torch.repeat_interleave(columns, data.q_length[q])
    at = torch.arange(len(owner), device=data.device) - (data.q_length[q].cumsum(0) - data.q_length[q])[owner]
    asked = torch.zeros(data.vocabulary, len(q), device=data.device)
    asked[data.q_tokens[data.q_start[q][owner] + at], owner] = 1.0
    s = pool.index @ asked  # (passages, queries)
    t = pool.vectors @ eq[q].T
    blocked = (starts[:, None] < data.anchor[q, 1]) & (ends[:, None] > data.anchor[q, 0]) | (pool.vectors @ ep[positive].T > SAME)
    blocked[own, columns] = True
    lexical = s.masked_fill(blocked, -1e9).topk(LEXICAL, dim=0).indices.T
    dense = t.masked_fill(blocked, -1e9).topk(DENSE, dim=0).indices.T
    chance = torch.randint(len(passages), (len(q), RANDOM), device=data.device, generator=generator)
    chosen = torch.cat([own[:, None], lexical, dense, chance], 1)
    # Random ones that hold the answer, and what a small pool had to give, are no negatives.
    held_back = blocked[chosen[:, 1:], columns[:, None]]
    negatives = passages[chosen[:, 1:]].masked_fill(held_back, -1)
    return q, torch.full_like(q, pool.kind), positive, negatives.int(), s[chosen, columns[:, None]], t[chosen, columns[:, None]]


def sample(groups: Groups, rows: torch.Tensor, counts: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """(rows, 1 + sum(counts)) columns of `s`: the own passage, then so many of BM25's, the teacher's and the random ones; the top more often."""
    width = LEXICAL + DENSE + RANDOM
    rank = torch.cat([torch.arange(n, device=rows.device) for n in (LEXICAL, DENSE, RANDOM)]).float()
    noise = torch.rand(len(rows), width, device=rows.device, generator=generator)
    keys = -torch.log(-torch.log(noise.clamp(1e-9, 1 - 1e-7))) - torch.log(rank + 3)
    keys = keys.masked_fill(groups.negatives[rows] < 0, -1e9)
    columns, first = [torch.zeros(len(rows), 1, dtype=torch.long, device=rows.device)], 0
    for size, count in zip((LEXICAL, DENSE, RANDOM), counts):
        columns.append(keys[:, first : first + size].topk(count, 1).indices + first + 1)
        first += size
    return torch.cat(columns, 1)


def batches_of(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
