"""Turn titled sections into what training reads: passages as spans of one long row of tokens, and queries, each with its passages.

    build_data.py --work WORK --base WORK/base --out WORK/data.npz [--tokens 18e6] [--queries 300000] [--seed 0]

Passages are of three kinds, ranked each among its own: sentences, paragraphs (30 to 180 tokens), and long ones (200 to 480 tokens,
running on into the sections that follow). A query knows the sentence it was made from, and so the passage of each kind that holds it.
Every 50th run of twenty sections is kept for validation: its queries are not trained on. Negatives are found later, by `mine.py`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from queries import CJK, SPLIT, Maker
from tokenizers import Tokenizer

SHARE = {"en": 0.36, "zh": 0.20, "ar": 0.015, "uk": 0.02}  # of tokens and of queries; the remaining languages share the rest evenly
SKIPPED = {"hi"}  # too little text
# How often sources are drawn, languages by languages: prose before manuals.
OFTEN = {"encyclopedia": 6, "wordnet": 0.6, "factbook": 1.2, "gene-ontology": 1.5, "wesnoth": 3, "widelands": 2, "sky-cultures": 5, "debian-handbook": 1.5,
         "libreoffice-help": 0.4, "python-doc": 0.5, "postgresql-doc": 0.5, "rust-doc": 0.7, "manual-pages": 1.0, "descriptions-en": 0.8}
KINDS = ("title", "given", "cloze", "keywords", "rare", "claim", "run")
RUN = 20  # sections that are held out, or not, together


def chosen(docs: list[dict], tokens: float) -> list[dict]:
    """Sections in their order, so many of each language and source as their shares allow (at about 4.2 letters a token, 1.6 in Chinese)."""
    languages = sorted({d["lang"] for d in docs} - SKIPPED)
    others = [x for x in languages if x not in SHARE]
    sizes: Counter[tuple[str, str]] = Counter()
    for d in docs:
        sizes[d["lang"], d["source"]] += sum(map(len, d["paras"]))
    rng = random.Random(1)
    rate: dict[tuple[str, str], float] = {}
    for lang in languages:
        budget = tokens * SHARE.get(lang, (1 - sum(SHARE.values())) / len(others)) * (1.6 if lang == "zh" else 2.0 if lang in ("ja", "ko") else 4.2)
        mine = {key: size for key, size in sizes.items() if key[0] == lang}
        weights = {key: size * OFTEN.get(key[1], 1.0) for key, size in mine.items()}
        taken: set[tuple[str, str]] = set()
        for _ in range(20):  # a source that has too little leaves its room to the others
            room = budget - sum(mine[key] for key in taken)
            rest = sum(w for key, w in weights.items() if key not in taken)
            rate.update({key: room * w / rest / mine[key] for key, w in weights.items() if key not in taken})
            full = {key for key in weights if key not in taken and rate[key] >= 1}
            if not full:
                break
            taken |= full
    return [d for at in range(0, len(docs), RUN) for d in docs[at : at + RUN] if d["lang"] not in SKIPPED and rng.random() < rate[d["lang"], d["source"]]]


def cut(paragraph: str) -> list[tuple[int, int]]:
    """Where its sentences lie; short ones stay with the one before."""
    least = 8 if CJK.search(paragraph) else 25
    ends = [m.start() for m in SPLIT.finditer(paragraph) if 0 < m.start() < len(paragraph)]
    starts = [0]
    for end in ends:
        if end - starts[-1] >= least and len(paragraph) - end >= least:
            starts.append(end)
    return list(pairwise([*starts, len(paragraph)]))


def queries_of(job: tuple[list[dict], list[tuple[int, int, str]], int]) -> list[tuple[int, int, int, str]]:
    """(section, sentence, kind, query) for sections of one language."""
    docs, wanted, seed = job
    maker = Maker(docs, seed)
    rng = random.Random(seed)
    out = []
    for at, sentence_at, sentence in wanted:
        doc = docs[at]
        lang = doc["lang"]
        kind = rng.choices(KINDS, (0.13, 0.16, 0.38, 0.11, 0.13, 0.10, 0.05))[0]
        if kind == "given" and not doc.get("queries") and not doc.get("lemmas"):
            kind = "cloze" if rng.random() < 0.6 else "title"
        if kind == "title" and (not doc["title"] or doc["source"] == "wordnet"):
            kind = "claim"
        if kind == "given":
            query = maker.entry(doc) if doc.get("lemmas") else rng.choice(doc["queries"])
        elif kind == "title":
            query = maker.title(doc)
            if rng.random() < 0.3:
                query += " " + maker.keywords(sentence, lang)
        else:
            query = getattr(maker, kind)(sentence, lang)
        query = query.strip()[:320]
        if len(query) >= 2:
            out.append((at, sentence_at, KINDS.index(kind), query))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=18e6)
    parser.add_argument("--queries", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    docs = chosen([json.loads(x) for x in (args.work / "docs.jsonl").open(encoding="utf-8")], args.tokens)
    maker = Maker([], args.seed)
    for doc in docs:
        if doc["source"] == "wordnet":
            doc["paras"] = [maker.gloss(doc)]
    docs = [d for d in docs if any(len(p) > 8 for p in d["paras"])]
    tokenizer = Tokenizer.from_file(str(args.base / "tokenizer.json"))
    languages = sorted({d["lang"] for d in docs})
    print(f"{len(docs)} sections, {len(languages)} languages", flush=True)

    texts: list[tuple[int, str, bool]] = []  # (section, text, whether it is a title)
    for n, doc in enumerate(docs):
        if doc["title"] and doc["source"] not in ("wordnet", "factbook", "gene-ontology"):
            texts.append((n, doc["title"], True))
        texts += [(n, p, False) for p in doc["paras"]]
    flat: list[np.ndarray] = []
    segments: list[tuple[int, int, int, bool]] = []  # (section, start, end, title)
    sentences: list[tuple[int, int, int]] = []  # (section, start, end) of the flat row
    sentence_texts: list[str] = []
    size = 0
    for at in range(0, len(texts), 20000):
        part = texts[at : at + 20000]
        for (n, text, title), enc in zip(part, tokenizer.encode_batch([t for _, t, _ in part], add_special_tokens=False)):
            ids = np.array(enc.ids, np.uint16)
            if not len(ids):
                continue
            segments.append((n, size, size + len(ids), title))
            if not title:
                starts = np.array([a for a, _ in enc.offsets])
                for a, b in cut(text):
                    first, last = np.searchsorted(starts, [a, b])
                    if last > first:
                        sentences.append((n, size + int(first), size + int(last)))
                        sentence_texts.append(text[a:b].strip())
            flat.append(ids)
            size += len(ids)
    print(f"{size / 1e6:.1f} M tokens, {len(sentences)} sentences", flush=True)

    held = np.array([(n // RUN) % 50 == 7 for n in range(len(docs))])
    passages: list[tuple[int, int, int, int]] = []  # (start, length, language, kind)
    of_sentence = np.full((len(sentences), 3), -1, np.int32)
    bounds = np.array([s for _, s, _ in sentences])

    def add(start: int, end: int, n: int, kind: int) -> None:
        passages.append((start, end - start, languages.index(docs[n]["lang"]), kind))
        first, last = np.searchsorted(bounds, [start, end])
        of_sentence[first:last, kind] = len(passages) - 1

    for n, start, end in sentences:
        if 5 <= end - start <= 200:
            add(start, end, n, 0)
    for kind, (least, most, limit) in ((1, (30, 180, 260)), (2, (200, 460, 500))):
        opened: tuple[int, int, int] | None = None  # (section, start, end)
        target = 0
        for n, start, end, title in segments:
            if opened is not None:
                m, s, e = opened
                same = n == m if kind == 1 else (docs[n]["lang"], docs[n]["source"], bool(held[n])) == (docs[m]["lang"], docs[m]["source"], bool(held[m]))
                if not same or e - s >= target or end - s > limit:
                    add(s, min(e, s + limit), m, kind)
                    opened = None
            if opened is None:
                if title and kind == 1 and rng.random() < 0.6:
                    continue  # most paragraphs stand without their heading
                opened, target = (n, start, end), rng.randint(least, most)
            else:
                opened = (opened[0], opened[1], end)
        if opened is not None:
            add(opened[1], min(opened[2], opened[1] + limit), opened[0], kind)

    by_lang: dict[str, list[int]] = defaultdict(list)
    for i, (n, _, _) in enumerate(sentences):
        by_lang[docs[n]["lang"]].append(i)
    others = [x for x in languages if x not in SHARE]
    jobs = []
    for lang in languages:
        quota = int(args.queries * SHARE.get(lang, (1 - sum(SHARE.values())) / len(others)))
        pool = by_lang[lang]
        # Long sections are asked about more than once, short ones not every time.
        weights = np.array([min(len(sentence_texts[i]), 200) ** 0.5 for i in pool])
        picks = np.random.default_rng(args.seed).choice(len(pool), quota, replace=quota > len(pool), p=weights / weights.sum())
        first = min(sentences[i][0] for i in pool)
        local = {n: k for k, n in enumerate(sorted({sentences[i][0] for i in pool}))}
        mine = [docs[n] for n in sorted(local)]
        del first
        wanted = [(local[sentences[pool[j]][0]], int(pool[j]), sentence_texts[pool[j]]) for j in picks.tolist()]
        step = 60000
        jobs += [(mine, wanted[a : a + step], args.seed + a) for a in range(0, len(wanted), step)]
    jobs.sort(key=lambda job: -len(job[1]))
    made: list[tuple[int, int, str]] = []
    with multiprocessing.get_context("fork").Pool(args.processes) as pool_of:
        for rows in pool_of.imap_unordered(queries_of, jobs) if args.processes > 1 else map(queries_of, jobs):
            made += [(sentence, kind, query) for _, sentence, kind, query in rows]
    made.sort()
    rng.shuffle(made)
    ids = [np.array(e.ids[:64], np.uint16) for e in tokenizer.encode_batch([q for _, _, q in made], add_special_tokens=False)]
    anchors = np.array([sentences[s][1:] for s, _, _ in made], np.uint32)
    table = np.array(passages, np.int64)
    np.savez(
        args.out, tokens=np.concatenate(flat), passage_start=table[:, 0].astype(np.uint32), passage_length=table[:, 1].astype(np.uint16),
        passage_language=table[:, 2].astype(np.uint8), passage_kind=table[:, 3].astype(np.uint8), query_tokens=np.concatenate(ids),
        query_length=np.array([len(x) for x in ids], np.uint8), query_kind=np.array([k for _, k, _ in made], np.uint8),
        query_language=np.array([languages.index(docs[sentences[s][0]]["lang"]) for s, _, _ in made], np.uint8),
        query_held=np.array([held[sentences[s][0]] for s, _, _ in made]), query_passages=of_sentence[[s for s, _, _ in made]], anchor=anchors,
        languages=np.array(languages), kinds=np.array(KINDS), ask=np.array(tokenizer.encode("query: ", add_special_tokens=False).ids),
        tell=np.array(tokenizer.encode("passage: ", add_special_tokens=False).ids))
    print(f"{len(made)} queries of {np.mean([len(x) for x in ids]):.1f} tokens; passages: " + ", ".join(
        f"{int((table[:, 3] == k).sum())} of {table[table[:, 3] == k, 1].mean():.0f}" for k in range(3)), flush=True)
    if args.queries <= 2000:
        for s, k, q in made[:60]:
            print(f"{KINDS[k]:9} {q!r}  <-  {sentence_texts[s][:90]!r}")


if __name__ == "__main__":
    main()
