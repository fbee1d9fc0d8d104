"""The student (XLM-RoBERTa with one label) and the teacher (multilingual-e5-small) in plain torch, for CUDA and CPU.

Rows are packed: laid end to end, `cu` (rows + 1) holding their borders. On CUDA attention is FlashAttention over rows of different
length (torch.nn.attention.varlen), in bfloat16; on the CPU rows are padded for it, in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

EMBEDDING_SCALE = 8.0
"""What the student's embeddings are multiplied by, so that 8-bit floats hold them well. The layer norm after them undoes it."""


FORMS = {"attention": "varlen", "half": None}
"""How rows are attended to on CUDA (`varlen`, or `padded` where that fails), and the type to compute in (None: bfloat16 on CUDA, float32 on the CPU)."""


def half_of(tensor: torch.Tensor) -> torch.dtype:
    return FORMS["half"] or (torch.bfloat16 if tensor.is_cuda else torch.float32)  # type: ignore[return-value]


@dataclass(frozen=True)
class Shape:
    """What a student is."""

    layers: tuple[int, ...] = (0, 1, 2, 3, 5, 7)  # of the teacher's
    feed_forward: int = 768
    narrow: bool = False  # the smaller vocabulary
    eight_bits: bool = True  # matrices are stored as float8_e4m3fn, and trained in that precision


@dataclass(frozen=True)
class Packed:
    """Rows end to end."""

    ids: torch.Tensor  # (tokens,)
    positions: torch.Tensor  # (tokens,), from 0 in each row
    cu: torch.Tensor  # (rows + 1,) int32
    longest: int


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: torch.Tensor, cu_k: torch.Tensor, longest_q: int, longest_k: int) -> torch.Tensor:
    """(tokens of queries, heads, size); q, k, v are (tokens, heads, size)."""
    if q.is_cuda and FORMS["attention"] == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn(q, k, v, cu_q, cu_k, longest_q, longest_k)
    rows = len(cu_q) - 1

    def pad(x: torch.Tensor, cu: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.arange(longest, device=x.device) < (cu[1:] - cu[:-1])[:, None]
        return x.new_zeros(rows, longest, *x.shape[1:]).masked_scatter(mask[..., None, None], x), mask

    (pq, mq), (pk, mk), (pv, _) = pad(q, cu_q, longest_q), pad(k, cu_k, longest_k), pad(v, cu_k, longest_k)
    out = F.scaled_dot_product_attention(pq.transpose(1, 2), pk.transpose(1, 2), pv.transpose(1, 2), attn_mask=mk[:, None, None, :])
    return out.transpose(1, 2)[mq]


def start(teacher: Mapping[str, torch.Tensor], shape: Shape, seed: int) -> dict[str, torch.Tensor]:
    """Weights of an untrained student, named as transformers does: some layers of the teacher, the strongest units of their feed-forwards."""
    t = teacher
    hidden = t["emb.ln.w"].numel()
    words = t["emb.word"].view(-1, hidden)
    out = {}
    e = "roberta.embeddings"
    out[f"{e}.word_embeddings.weight"] = (words[t["narrow"].long()] if shape.narrow else words) * EMBEDDING_SCALE
    positions = torch.zeros(514, hidden)
    positions[2:] = t["emb.pos"].view(-1, hidden)[:512]  # RoBERTa counts positions from padding_idx + 1 = 2
    out[f"{e}.position_embeddings.weight"] = positions * EMBEDDING_SCALE
    out[f"{e}.token_type_embeddings.weight"] = t["emb.type"].view(-1, hidden)[:1] * EMBEDDING_SCALE
    out[f"{e}.LayerNorm.weight"], out[f"{e}.LayerNorm.bias"] = t["emb.ln.w"], t["emb.ln.b"]
    for new, old in enumerate(shape.layers):
        name, src = f"roberta.encoder.layer.{new}", f"l{old}"
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
            out[f"{name}.attention.self.{ours}.weight"] = t[f"{src}.{theirs}.w"].view(hidden, hidden)
            out[f"{name}.attention.self.{ours}.bias"] = t[f"{src}.{theirs}.b"]
        out[f"{name}.attention.output.dense.weight"] = t[f"{src}.ao.w"].view(hidden, hidden)
        out[f"{name}.attention.output.dense.bias"] = t[f"{src}.ao.b"]
        out[f"{name}.attention.output.LayerNorm.weight"], out[f"{name}.attention.output.LayerNorm.bias"] = t[f"{src}.aln.w"], t[f"{src}.aln.b"]
        up, down = t[f"{src}.fi.w"].view(-1, hidden), t[f"{src}.fo.w"].view(hidden, -1)
        best = torch.argsort(-up.norm(dim=1) * down.norm(dim=0), stable=True)[: shape.feed_forward].sort().values
        out[f"{name}.intermediate.dense.weight"], out[f"{name}.intermediate.dense.bias"] = up[best], t[f"{src}.fi.b"][best]
        out[f"{name}.output.dense.weight"], out[f"{name}.output.dense.bias"] = down[:, best], t[f"{src}.fo.b"]
        out[f"{name}.output.LayerNorm.weight"], out[f"{name}.output.LayerNorm.bias"] = t[f"{src}.oln.w"], t[f"{src}.oln.b"]
    out["classifier.dense.weight"], out["classifier.dense.bias"] = torch.eye(hidden), torch.zeros(hidden)
    out["classifier.out_proj.weight"] = torch.randn(1, hidden, generator=torch.Generator().manual_seed(seed)) * 0.05
    out["classifier.out_proj.bias"] = torch.zeros(1)
    return {name: tensor.detach().float().contiguous().clone() for name, tensor in out.items()}


def is_matrix(name: str, tensor: torch.Tensor) -> bool:
    """Whether it is stored in 8 bits: the word embeddings and the encoder's matrices, nearly all of the weights."""
    return tensor.dim() == 2 and ("encoder" in name or "word_embeddings" in name)


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """What 8 bits keep of a weight; the gradient passes through as if nothing had been rounded."""
    return weight + (weight.detach().to(torch.float8_e4m3fn).to(weight.dtype) - weight.detach())


class Student(torch.nn.Module):
    def __init__(self, weights: Mapping[str, torch.Tensor], shape: Shape, heads: int = 12) -> None:
        super().__init__()
        self.shape, self.heads = shape, heads
        self.names = list(weights)
        self.parameters_by_name = torch.nn.ParameterDict({name.replace(".", "/"): torch.nn.Parameter(tensor.clone()) for name, tensor in weights.items()})
        self.tail = _tail  # may be compiled

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: self.parameters_by_name[name.replace(".", "/")] for name in self.names}

    def stored(self) -> dict[str, torch.Tensor]:
        """As they go to a file."""
        return {
            name: tensor.detach().cpu().to(torch.float8_e4m3fn if self.shape.eight_bits and is_matrix(name, tensor) else torch.float16).contiguous()
            for name, tensor in self.weights().items()
        }

    def forward(self, rows: Packed) -> torch.Tensor:
        """(rows,) logits in float32."""
        half = half_of(rows.ids)
        w = {}
        for name, tensor in self.weights().items():
            tensor = rounded(tensor) if self.shape.eight_bits and is_matrix(name, tensor) else tensor
            w[name] = tensor if "embeddings" in name or "classifier" in name or "LayerNorm" in name else tensor.to(half)
        e = "roberta.embeddings"
        hidden = w[f"{e}.LayerNorm.weight"].numel()
        x = F.embedding(rows.ids, w[f"{e}.word_embeddings.weight"]) + F.embedding(rows.positions + 2, w[f"{e}.position_embeddings.weight"])
        x = F.layer_norm(x + w[f"{e}.token_type_embeddings.weight"][0], (hidden,), w[f"{e}.LayerNorm.weight"], w[f"{e}.LayerNorm.bias"], 1e-5).to(half)
        size = hidden // self.heads
        last = len(self.shape.layers) - 1
        for n in range(last + 1):
            p = f"roberta.encoder.layer.{n}"
            a = f"{p}.attention.self"
            cu_q, longest_q = rows.cu, rows.longest
            if n < last:
                q, k, v = F.linear(x, torch.cat([w[f"{a}.{s}.weight"] for s in ("query", "key", "value")]),
                                   torch.cat([w[f"{a}.{s}.bias"] for s in ("query", "key", "value")])).view(-1, 3, self.heads, size).unbind(1)
            else:  # the score needs <s> alone
                k, v = F.linear(x, torch.cat([w[f"{a}.{s}.weight"] for s in ("key", "value")]),
                                torch.cat([w[f"{a}.{s}.bias"] for s in ("key", "value")])).view(-1, 2, self.heads, size).unbind(1)
                x = x[rows.cu[:-1].long()]
                q = F.linear(x, w[f"{a}.query.weight"], w[f"{a}.query.bias"]).view(-1, self.heads, size)
                cu_q, longest_q = torch.arange(len(rows.cu), device=rows.cu.device, dtype=torch.int32), 1
            mixed = attend(q, k, v, cu_q, rows.cu, longest_q, rows.longest).reshape(-1, hidden)
            x = self.tail(x, mixed, *(w[f"{p}.{s}.{kind}"] for s in ("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense",
                                                                      "output.dense", "output.LayerNorm") for kind in ("weight", "bias")))
        x = torch.tanh(F.linear(x.float(), w["classifier.dense.weight"], w["classifier.dense.bias"]))
        return F.linear(x, w["classifier.out_proj.weight"], w["classifier.out_proj.bias"])[:, 0]


def _tail(x: torch.Tensor, mixed: torch.Tensor, ow: torch.Tensor, ob: torch.Tensor, nw: torch.Tensor, nb: torch.Tensor, iw: torch.Tensor, ib: torch.Tensor,
          dw: torch.Tensor, db: torch.Tensor, lw: torch.Tensor, lb: torch.Tensor) -> torch.Tensor:
    """A layer from its attention's result on."""
    size = (x.shape[-1],)
    x = F.layer_norm(x + F.linear(mixed, ow, ob), size, nw.to(x.dtype), nb.to(x.dtype), 1e-5)
    return F.layer_norm(x + F.linear(F.gelu(F.linear(x, iw, ib)), dw, db), size, lw.to(x.dtype), lb.to(x.dtype), 1e-5)


def load_teacher(path: str, device: torch.device) -> dict[str, torch.Tensor]:
    """teacher.npz of build_base.py: float32 tensors, and the smaller vocabulary's arrays."""
    out = {}
    with np.load(path) as file:
        for name in file.files:
            if name.endswith("/q"):
                out[name[:-2]] = (torch.from_numpy(file[name]).to(device).view(-1, 32).float() * torch.from_numpy(file[f"{name[:-2]}/d"]).to(device).float()[:, None]).view(-1)
            elif not name.endswith("/d"):
                array = file[name]
                out[name] = torch.from_numpy(array.astype(np.float32) if array.dtype == np.float16 else array.astype(np.int64)).to(device)
    return out


@torch.inference_mode()
def embed(t: Mapping[str, torch.Tensor], rows: Packed, heads: int = 12) -> torch.Tensor:
    """(rows, hidden) float32: mean-pooled, normalised embeddings as multilingual-e5-small defines them."""
    half = half_of(rows.ids)
    hidden = t["emb.ln.w"].numel()
    size = hidden // heads

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        x = x.to(half)  # layer norms compute in float32 inside
        return F.layer_norm(x, (hidden,), t[f"{name}.w"].to(half), t[f"{name}.b"].to(half), 1e-12)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        bias = t[f"{name}.b"]
        return F.linear(x, t[f"{name}.w"].view(len(bias), -1).to(half), bias.to(half))

    x = norm(t["emb.word"].view(-1, hidden)[rows.ids] + t["emb.pos"].view(-1, hidden)[rows.positions] + t["emb.type"][:hidden], "emb.ln")
    n = 0
    while f"l{n}.q.w" in t:
        q, k, v = (linear(x, f"l{n}.{p}").view(-1, heads, size) for p in "qkv")
        mixed = attend(q, k, v, rows.cu, rows.cu, rows.longest, rows.longest).reshape(-1, hidden)
        x = norm(x + linear(mixed, f"l{n}.ao"), f"l{n}.aln")
        x = norm(x + linear(F.gelu(linear(x, f"l{n}.fi")), f"l{n}.fo"), f"l{n}.oln")
        n += 1
    lengths = (rows.cu[1:] - rows.cu[:-1]).long()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=x.device), lengths)
    pooled = torch.zeros(len(lengths), hidden, device=x.device).index_add_(0, owner, x.float()) / lengths[:, None]
    return F.normalize(pooled, dim=-1)
