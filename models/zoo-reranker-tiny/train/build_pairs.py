"""Turn titled sections into tokenised training groups: a query, its passage, and hard and random negatives.

    build_pairs.py --work WORK --tokenizer WORK/base/tokenizer.json --queries 60000 [--seed 0] [--name train] [--sentences 0.25]

Queries come from the passage's own surroundings (its heading, a neighbouring sentence, a sentence with its answer
cut out and a question word put in, its rarest words) or from WordNet (what is LEMMA?). Negatives are BM25's top hits
over the same language's passages, other sections of the same document, and random passages.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pickle
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import jieba.posseg
import numpy as np
from scipy import sparse
from tokenizers import Tokenizer

SHARE = {"en": 0.44, "zh": 0.24}  # the remaining languages share the rest evenly
# English has enough sources to choose: how often each is drawn (a section, then a passage of it).
ENGLISH = {"encyclopedia": 0.40, "wordnet": 0.12, "factbook-prose": 0.12, "factbook-fact": 0.03, "descriptions-en": 0.14,
           "python-doc": 0.05, "postgresql-doc": 0.04, "rust-doc": 0.03, "libreoffice-help": 0.05, "debian-handbook": 0.02}
# With --weighted, languages but English: prose before the help of an office program, of which there is most.
OFTEN = {"wesnoth": 3, "libreoffice-help": 0.4}
QUESTION = {
    "en": ["what", "which", "who", "when", "where", "how many", "what", "which", "why", "how"],
    "zh": ["什么", "哪个", "谁", "什么时候", "哪里", "多少", "为什么", "哪些", "怎么"],
    "de": ["was", "welche", "wer", "wann", "wo", "wie"], "fr": ["quel", "qui", "quand", "où", "comment", "que"],
    "es": ["qué", "cuál", "quién", "cuándo", "dónde", "cómo"], "it": ["che cosa", "quale", "chi", "quando", "dove", "come"],
    "ja": ["何", "どの", "誰", "いつ", "どこ", "どう"], "ru": ["что", "какой", "кто", "когда", "где", "как"],
    "ko": ["무엇", "어떤", "누가", "언제", "어디"], "pl": ["co", "jaki", "kto", "kiedy", "gdzie", "jak"],
    "pt": ["o que", "qual", "quem", "quando", "onde", "como"],
}
# What a question asks for, when the part cut out of a sentence is a year, a number, or a name.
ASKED = {
    "en": (("when", "in what year", "what year"), ("how many", "how much", "what number of"), ("who", "what", "which", "where")),
    "zh": (("什么时候", "哪一年", "何时"), ("多少", "几", "有多少"), ("谁", "什么", "哪里")),
    "fr": (("quand", "en quelle année"), ("combien",), ("qui", "quel", "où")), "es": (("cuándo", "en qué año"), ("cuántos", "cuánto"), ("quién", "qué", "dónde")),
    "de": (("wann", "in welchem Jahr"), ("wie viele",), ("wer", "was", "wo")),
}
# The same by part of speech, as jieba tags it.
ASKED_ZH = {"nr": ("谁", "哪位"), "ns": ("哪里", "什么地方", "哪个地方"), "nt": ("哪个组织", "什么机构"), "nz": ("什么", "哪个"), "t": ("什么时候", "哪一年", "何时"),
            "m": ("多少", "几", "多少"), "n": ("什么", "哪个", "哪些", "什么"), "vn": ("什么",), "v": ("怎么", "如何", "做什么"), "a": ("怎样",)}
YEAR, NUMBER = re.compile(r"1\d{3}|20\d\d"), re.compile(r"\d+")
TITLE = {
    "encyclopedia-en": ["who was {}?", "what is {}?", "{}", "tell me about {}", "what was {}?", "who is {}?", "facts about {}"],
    "encyclopedia-fr": ["{}", "Qu'est-ce que {} ?", "Qui était {} ?"], "encyclopedia-es": ["{}", "¿Qué es {}?", "¿Quién fue {}?"],
    "en": ["{}", "{}", "what is {}?", "how to {}", "{} explained", "tell me about {}", "what does {} do?"],
    "zh": ["{}", "{}", "什么是{}？", "如何{}？", "{}是什么", "{}有什么作用？", "介绍一下{}"],
    "de": ["{}", "Was ist {}?"], "fr": ["{}", "Qu'est-ce que {} ?"], "es": ["{}", "¿Qué es {}?"], "ja": ["{}", "{}とは何ですか"],
    "ru": ["{}", "Что такое {}?"], "it": ["{}", "Che cos'è {}?"],
}
LEMMA = ["what is {}?", "what is a {}?", "{}", "define {}", "what does {} mean?", "meaning of {}", "{} definition", "what are {}s?", "who or what is {}"]
GLOSS = ["{l}: {g}", "{L} is {g}.", "The {l}, {also}is {g}.", "{g} ({l})", "A {l} is {k}: {g}.", "{L} - {k}. {g}", "{L} ({k}), {g}"]
SPLIT = re.compile(r"(?<=[。！？；])|(?<=[.!?;]) ")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
KANA = re.compile(r"[\u3040-\u30ff]")
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def pieces_of(paragraph: str) -> list[str]:
    """Its sentences, where it has any worth the name."""
    return [x for x in SPLIT.split(paragraph) if x and len(x) > 8] or [paragraph]


class Maker:
    """Writes queries for passages; one random stream, so a seed fixes everything."""

    def __init__(self, docs: list[dict], args: argparse.Namespace) -> None:
        self.long, self.sentences, self.fill, self.chinese_words = args.long, args.sentences, args.fill, args.chinese_words
        self.rng = random.Random(args.seed)
        self.docs = docs
        self.df: dict[str, Counter[str]] = defaultdict(Counter)
        self.n: Counter[str] = Counter()
        self.synonyms: dict[str, list[str]] = defaultdict(list)
        for doc in docs:
            words = set(self.words(" ".join(doc["paras"])))
            self.df[doc["lang"]].update(words)
            self.n[doc["lang"]] += 1
            single = [x.lower() for x in doc.get("lemmas", []) if x.isalpha()]
            for x in single:
                self.synonyms[x] += [y for y in single if y != x]

    @staticmethod
    def words(text: str) -> list[str]:
        return [w.lower() for w in WORD.findall(text)]

    def idf(self, word: str, lang: str) -> float:
        return math.log(1 + self.n[lang] / (1 + self.df[lang][word]))

    def units(self, text: str) -> list[str]:
        """Words for spaced scripts; runs of two or three characters for Chinese and Japanese."""
        out: list[str] = []
        for run in re.findall(r"[\u3040-\u30ff\u3400-\u9fff]+|[^\W\u3040-\u30ff\u3400-\u9fff]+", text):
            if self.chinese_words and CJK.match(run) and not KANA.search(run):
                out += jieba.cut(run)
            elif CJK.match(run):
                at = 0
                while at < len(run):
                    step = self.rng.choice((2, 2, 3))
                    out.append(run[at : at + step])
                    at += step
            else:
                out.append(run)
        return out

    def weight(self, unit: str, lang: str) -> float:
        if CJK.match(unit):
            return sum(self.idf(c, lang) for c in unit) / len(unit)
        return self.idf(unit.lower(), lang)

    def swap(self, units: list[str], rate: float) -> list[str]:
        out = []
        for u in units:
            options = self.synonyms.get(u.lower())
            out.append(self.rng.choice(options) if options and self.rng.random() < rate else u)
        return out

    def join(self, units: list[str], lang: str) -> str:
        return ("" if lang in ("zh", "ja") and self.rng.random() < 0.6 else " ").join(units)

    def keywords(self, text: str, lang: str) -> str:
        units = list(dict.fromkeys(self.units(text)))
        if not units:
            return text[:40]
        scored = sorted(units, key=lambda u: -self.weight(u, lang) * self.rng.uniform(0.3, 1.0))
        chosen = scored[: self.rng.randint(2, 7)]
        if self.rng.random() < 0.5:
            chosen.sort(key=text.find)
        return self.join(self.swap(chosen, 0.15), lang)

    def cloze(self, sentence: str, lang: str) -> str:
        """A question whose answer is the part cut out of the sentence."""
        rng = self.rng
        units = self.units(sentence)
        if len(units) < 4:
            return sentence
        if self.chinese_words and lang == "zh" and rng.random() < 0.8:
            return self.question(sentence)
        size = rng.randint(1, max(1, min(6, len(units) // 3)))
        at = rng.randrange(len(units) - size + 1)
        wh = rng.choice(QUESTION.get(lang, ["?"]))
        # A figure or a name is what people ask for; a name is known by its capital, so not in every script.
        named = [i for i, u in enumerate(units) if NUMBER.fullmatch(u) or (i and u[:1].isupper() and lang != "de")]
        if named and rng.random() < 0.6:
            at = rng.choice(named)
            kind = 0 if YEAR.fullmatch(units[at]) else 1 if NUMBER.fullmatch(units[at]) else 2
            size = 1
            while kind == 2 and at + size < len(units) and units[at + size][:1].isupper():
                size += 1
            wh = rng.choice(ASKED.get(lang, (QUESTION.get(lang, ["?"]),) * 3)[kind])
        left, right = units[:at], units[at + size :]
        left, right = left[-rng.randint(3, 12) :], right[: rng.randint(3, 12)]
        drop = rng.choice((0.0, 0.1, 0.3))
        left = [u for u in left if rng.random() > drop * 3 / (1 + self.weight(u, lang))]
        right = [u for u in right if rng.random() > drop * 3 / (1 + self.weight(u, lang))]
        if lang in ("zh", "ja"):
            parts = [*left, wh, *right] if rng.random() < 0.7 else [*right, *left, wh]
            return "".join(parts) + rng.choice("？？?") * rng.randint(0, 1)
        parts = [wh, *right, *left] if rng.random() < 0.4 else [wh, *left, *right] if rng.random() < 0.7 else [*left, wh, *right]
        text = " ".join(self.swap(parts, 0.12))
        return (text[:1].upper() + text[1:] if rng.random() < 0.7 else text) + rng.choice(("?", "?", " ?", ""))

    def question(self, sentence: str) -> str:
        """A question in Chinese whose answer is a word cut out of the sentence, with the question word that its kind of word asks for."""
        rng = self.rng
        words = [(w.word, w.flag) for w in jieba.posseg.cut(sentence) if w.word.strip()]
        kinds = [(i, key) for i, (word, flag) in enumerate(words) for key in [next((k for k in ASKED_ZH if flag.startswith(k)), "")] if key]
        if len(words) < 4 or not kinds:
            return sentence
        named = [x for x in kinds if x[1] in ("nr", "ns", "nt", "nz", "t", "m")]
        at, key = rng.choice(named if named and rng.random() < 0.65 else kinds)
        wh = rng.choice(ASKED_ZH[key])
        left = [w for w, _ in words[:at]]
        right = [w for w, _ in words[at + 1 :]]
        # A clause of it, and not quite in its words.
        for stop in "，。；：！？,;:!?":
            if stop in left and rng.random() < 0.7:
                left = left[len(left) - left[::-1].index(stop) :]
            if stop in right and rng.random() < 0.7:
                right = right[: right.index(stop)]
        left, right = left[-rng.randint(4, 14) :], right[: rng.randint(3, 12)]
        drop = rng.choice((0.0, 0.1, 0.25))
        left, right = ([w for w in part if rng.random() > drop * 3 / (1 + self.weight(w, "zh"))] for part in (left, right))
        parts = [*left, wh, *right] if rng.random() < 0.75 else [*right, "，", *left, wh] if right else [*left, wh]
        return "".join(parts).strip("，。；：！、 ") + rng.choice(("？", "?", "", "呢？"))

    def title(self, doc: dict) -> str:
        templates = TITLE.get(f"{doc['source']}-{doc['lang']}") or TITLE.get(doc["lang"], ["{}"])
        if doc.get("about") and self.rng.random() < 0.15:
            return f"{doc['about']} {self.keywords(doc['paras'][0], doc['lang'])}"
        return self.rng.choice(templates).format(str(doc["title"]).strip("。.?？"))

    def section(self, at_doc: int) -> tuple[str, str, frozenset[int]]:
        """(query, passage, documents it holds) of an ordinary titled section."""
        rng, doc = self.rng, self.docs[at_doc]
        lang, paras, holds = doc["lang"], doc["paras"], {at_doc}
        size = rng.random()
        at = rng.randrange(len(paras))
        if size < self.sentences:
            text = rng.choice(pieces_of(paras[at]))
        elif size < self.sentences + (1 - self.sentences) * 2 / 3:
            text = paras[at]
        else:
            text = ("" if lang in ("zh", "ja") else " ").join(paras[at : at + rng.randint(2, 6)])
        if size > 1 - self.long:  # as long as the model reads
            start = rng.randrange(len(paras))
            most = rng.randint(700, 2200) if lang not in ("zh", "ja", "ko") else rng.randint(250, 620)
            parts = [*paras[start:], *paras[:start]]
            while self.fill and sum(map(len, parts)) < most and len(holds) < 12:
                # What follows it in its source, or precedes it: a passage that says many things, one of them asked for.
                near = at_doc + (len(holds) if rng.random() < 0.7 else -len(holds))
                if not 0 <= near < len(self.docs) or (self.docs[near]["lang"], self.docs[near]["source"]) != (lang, doc["source"]) or near in holds:
                    break
                holds.add(near)
                beside = ("" if lang in ("zh", "ja") else " ").join(self.docs[near]["paras"])
                room = most - sum(map(len, parts))
                parts = [*parts, beside] if rng.random() < 0.5 else [beside[-room:], *parts]
            text = ("" if lang in ("zh", "ja") else " ").join(parts)[:most]
        else:
            text = text[: 900 if lang not in ("zh", "ja", "ko") else 450]
        sentences = [x.strip() for x in SPLIT.split(text) if x and len(x.strip()) > 8] or [text]
        kind = rng.random()
        if doc.get("queries") and kind < 0.7:
            query = rng.choice(doc["queries"])
        elif kind < 0.27 and len(self.words(doc["title"])) >= 1:
            query = self.title(doc)
            if rng.random() < 0.25:
                query += " " + self.keywords(text, lang)
            elif rng.random() < 0.3:
                text = f"{doc['title']}{'：' if lang == 'zh' else ': '}{text}"
        elif kind < 0.67:
            query = self.cloze(rng.choice(sentences), lang)
        elif kind < 0.80:
            query = self.keywords(rng.choice(sentences) if rng.random() < 0.6 else text, lang)
        elif kind < 0.93 and len(sentences) > 1:
            pick = rng.randrange(len(sentences))
            query = sentences[pick][:300]
            if rng.random() < 0.6:
                text = ("" if lang in ("zh", "ja") else " ").join(sentences[:pick] + sentences[pick + 1 :])
        else:
            units = self.units(rng.choice(sentences))
            start = rng.randrange(max(1, len(units) - 3))
            query = self.join(self.swap(units[start : start + rng.randint(2, 9)], 0.2), lang)
        return query[:320], text, frozenset(holds)

    def gloss(self, doc: dict) -> str:
        lemmas = doc["lemmas"]
        also = f"also called {' or '.join(lemmas[1:3])}, " if len(lemmas) > 1 and self.rng.random() < 0.7 else ""
        head = lemmas[0]
        text = self.rng.choice(GLOSS).format(l=head, L=head[:1].upper() + head[1:], g=doc["paras"][0], also=also, k=doc["kind"] or doc["part"])
        if len(doc["paras"]) > 1 and self.rng.random() < 0.4:
            text += " " + doc["paras"][1]
        return text

    def entry(self, doc: dict) -> tuple[str, str]:
        """(query, passage) of a WordNet synset."""
        rng = self.rng
        if rng.random() < 0.75:
            return rng.choice(LEMMA).format(rng.choice(doc["lemmas"])), self.gloss(doc)
        if rng.random() < 0.5:
            return self.cloze(doc["paras"][0], "en"), self.gloss(doc)
        return doc["paras"][0], f"{doc['lemmas'][-1]}" if rng.random() < 0.5 else self.gloss(doc)


def bm25(lists: list[list[int]], size: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Passage-by-piece weights (k1 0.9, b 0.4), and idf."""
    rows = [Counter(x) for x in lists]
    lengths = np.array([max(1, len(x)) for x in lists], np.float32)
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.fromiter((k for r in rows for k in r), np.int32, indptr[-1])
    tf = np.fromiter((v for r in rows for v in r.values()), np.float32, indptr[-1])
    df = np.bincount(indices, minlength=size)
    idf = np.log(1 + (len(lists) - df + 0.5) / (df + 0.5)).astype(np.float32)
    norm = np.repeat(0.9 * (0.6 + 0.4 * lengths / lengths.mean()), np.diff(indptr)).astype(np.float32)
    data = idf[indices] * tf * 1.9 / (tf + norm)
    return sparse.csr_matrix((data, indices, indptr), shape=(len(lists), size)), idf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="train")
    parser.add_argument("--negatives", type=int, default=10)
    parser.add_argument("--long", type=float, default=0.0, help="share of passages near the model's limit")
    parser.add_argument("--sentences", type=float, default=0.25, help="share of passages that are one sentence")
    parser.add_argument("--docs", default="docs", help="names of the files of sections, joined by commas")
    parser.add_argument("--share", default="", help="shares of languages, as zh=0.4,en=0.36")
    parser.add_argument("--fill", action="store_true", help="long passages run on into the sections around them")
    parser.add_argument("--chinese-words", action="store_true", help="cut Chinese into words, and ask for one as its part of speech is asked for")
    parser.add_argument("--translated", action="store_true", help="leave out paragraphs of Chinese sections that are half in another script")
    parser.add_argument("--weighted", action="store_true", help="draw long sections more often, and those of sources by OFTEN")
    parser.add_argument("--siblings", action="store_true", help="the other sentences of a passage's paragraph may be negatives")
    parser.add_argument("--texts", action="store_true", help="keep the texts beside the ids")
    args = parser.parse_args()
    rng = random.Random(args.seed + 1)
    docs = [json.loads(x) for name in args.docs.split(",") for x in (args.work / f"{name}.jsonl").open(encoding="utf-8")]
    # Every 50th document is for validation alone.
    docs = [d for i, d in enumerate(docs) if (i % 50 == 0) == args.name.startswith("valid") or args.name == "all"]
    share_of = SHARE | {k: float(v) for k, _, v in (x.partition("=") for x in args.share.split(",") if x)}
    if args.translated:
        for doc in docs:
            if doc["lang"] == "zh":
                doc["paras"] = [x for x in doc["paras"] if 2 * len(CJK.findall(x)) > len(x)]
        docs = [doc for doc in docs if doc["paras"]]
    maker = Maker(docs, args)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    by_lang: dict[str, list[int]] = defaultdict(list)
    english: dict[str, list[int]] = defaultdict(list)
    for i, doc in enumerate(docs):
        if doc["lang"] == "en":
            kind = doc["source"]
            english[kind if kind != "factbook" else "factbook-fact" if doc["queries"] else "factbook-prose"].append(i)
        by_lang[doc["lang"]].append(i)
    kinds = [k for k in ENGLISH if english[k]]
    others = [x for x in sorted(by_lang) if x not in share_of]
    quota = {lang: int(args.queries * share_of.get(lang, (1 - sum(share_of.values())) / len(others))) for lang in sorted(by_lang)}
    sources: Counter[str] = Counter()
    # A section a paragraph long is drawn less often than one that fills passages.
    heavy = {lang: list(itertools.accumulate(sum(map(len, docs[i]["paras"])) ** 0.5 * OFTEN.get(docs[i]["source"], 1) for i in rows)) for lang, rows in by_lang.items() if args.weighted}
    made: dict[str, list[tuple[frozenset[int], str, str]]] = {}
    for lang, count in quota.items():
        rows = []
        for _ in range(count):
            if lang != "en" and args.weighted:
                (i,) = rng.choices(by_lang[lang], cum_weights=heavy[lang])
            else:
                i = rng.choice(by_lang[lang] if lang != "en" else english[rng.choices(kinds, [ENGLISH[k] for k in kinds])[0]])
            query, text, holds = (*maker.entry(docs[i]), frozenset([i])) if docs[i]["source"] == "wordnet" else maker.section(i)
            if len(query.strip()) >= 2 and len(text.strip()) >= 2:
                rows.append((holds, query.strip(), text.strip()))
                sources[f"{docs[i]['source']}\t{lang}"] += 1
        made[lang] = rows
    groups = []
    for lang, rows in made.items():
        texts = [t for _, _, t in rows]
        owner = [i for i, _, _ in rows]
        for i in sorted(set().union(*owner)) if args.siblings else ():
            if docs[i]["source"] != "wordnet":
                others = [x.strip() for x in pieces_of(docs[i]["paras"][0])[:8]]
                texts += others
                owner += [frozenset([i])] * len(others)
        ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        queries = [e.ids for e in tokenizer.encode_batch([q for _, q, _ in rows], add_special_tokens=False)]
        matrix, idf = bm25(ids, tokenizer.get_vocab_size())
        matrix_t = matrix.T.tocsr()
        sets = [frozenset(x) for x in ids]
        for start in range(0, len(rows), 256):
            block = queries[start : start + 256]
            q = sparse.csr_matrix(
                (np.ones(sum(len(set(x)) for x in block), np.float32), np.fromiter((t for x in block for t in set(x)), np.int32),
                 np.cumsum([0, *[len(set(x)) for x in block]])), shape=(len(block), matrix.shape[1]))
            scores = np.asarray((q @ matrix_t).todense())
            top = min(60, scores.shape[1] - 1)
            best = np.argpartition(-scores, top, axis=1)[:, :top]
            for r in range(len(block)):
                me = start + r
                order = best[r][np.argsort(-scores[r, best[r]], kind="stable")]
                mine = sets[me]
                found = []
                asked = set(block[r])
                for j in order.tolist():
                    akin = not owner[j].isdisjoint(owner[me])
                    if j == me or akin and sets[j] & mine and len(sets[j] & mine) > 0.3 * len(mine):
                        continue
                    if akin and len(owner[me]) + len(owner[j]) > 2 and len(asked & sets[j]) >= 0.8 * len(asked & mine):
                        continue  # holds the same section, and the words asked for
                    if args.siblings and akin and len(sets[j] & mine) > 0.7 * len(sets[j]):
                        continue  # a part of the passage
                    union = len(sets[j] | mine)
                    if len(sets[j] & mine) > 0.7 * union:  # a near-copy is no negative
                        continue
                    if len(asked & sets[j]) >= len(asked & mine) and len(asked - sets[j]) == 0:
                        continue  # holds every word of the query: likely relevant too
                    found.append((j, float(scores[r, j])))
                # The top, and as many from further down: a reranker meets both.
                half = args.negatives // 2
                below = found[half:]
                negatives = [*found[:half], *sorted(rng.sample(below, min(half, len(below))), key=lambda x: -x[1])]
                for _ in range(1000):
                    if len(negatives) >= args.negatives + 4:
                        break
                    j = rng.randrange(len(texts))
                    if j != me and owner[j].isdisjoint(owner[me]):
                        negatives.append((j, float(scores[r, j])))
                else:
                    continue  # too few sections in this language
                passages = [me, *[j for j, _ in negatives]]
                group = {"q": np.array(block[r], np.int32), "p": passages, "s": [float(scores[r, me]), *[s for _, s in negatives]], "lang": lang}
                if args.texts:
                    group["text"] = [rows[me][1], *[texts[j] for j in passages]]
                groups.append((group, ids))
        print(lang, len(rows), flush=True)
    pools: list[np.ndarray] = []
    index: dict[tuple[int, int], int] = {}
    out = []
    for group, ids in groups:
        refs = []
        for j in group["p"]:
            key = (id(ids), j)
            if key not in index:
                index[key] = len(pools)
                pools.append(np.array(ids[j], np.int32))
            refs.append(index[key])
        out.append({**group, "p": refs})
    rng.shuffle(out)
    with (args.work / f"{args.name}.pkl").open("wb") as f:
        pickle.dump({"passages": pools, "groups": out, "sources": dict(sources)}, f)
    lengths = [len(pools[x]) for g in out for x in g["p"][:1]]
    print(f"{len(out)} groups; passage pieces: mean {np.mean(lengths):.0f}, 90 % below {np.quantile(lengths, 0.9):.0f}")


if __name__ == "__main__":
    main()
