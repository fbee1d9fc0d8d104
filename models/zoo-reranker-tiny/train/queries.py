"""Queries made by rule from titled sections: `Maker` writes them, a random stream behind it.

Queries come from a passage's own surroundings: its heading, a neighbouring sentence, a sentence with its answer cut out and a question
word put in, its rarest words (names, numbers, identifiers), or from WordNet (what is LEMMA?).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict

import jieba.posseg

QUESTION = {
    "en": ["what", "which", "who", "when", "where", "how many", "what", "which", "why", "how"],
    "zh": ["什么", "哪个", "谁", "什么时候", "哪里", "多少", "为什么", "哪些", "怎么"],
    "de": ["was", "welche", "wer", "wann", "wo", "wie"], "fr": ["quel", "qui", "quand", "où", "comment", "que"],
    "es": ["qué", "cuál", "quién", "cuándo", "dónde", "cómo"], "it": ["che cosa", "quale", "chi", "quando", "dove", "come"],
    "ja": ["何", "どの", "誰", "いつ", "どこ", "どう"], "ru": ["что", "какой", "кто", "когда", "где", "как"],
    "ko": ["무엇", "어떤", "누가", "언제", "어디"], "pl": ["co", "jaki", "kto", "kiedy", "gdzie", "jak"],
    "pt": ["o que", "qual", "quem", "quando", "onde", "como"], "nl": ["wat", "welke", "wie", "wanneer", "waar", "hoe"],
    "sv": ["vad", "vilken", "vem", "när", "var", "hur"], "cs": ["co", "jaký", "kdo", "kdy", "kde", "jak"], "tr": ["ne", "hangi", "kim", "ne zaman", "nerede", "nasıl"],
    "vi": ["gì", "nào", "ai", "khi nào", "ở đâu", "như thế nào"], "id": ["apa", "yang mana", "siapa", "kapan", "di mana", "bagaimana"],
    "uk": ["що", "який", "хто", "коли", "де", "як"], "ar": ["ما", "أي", "من", "متى", "أين", "كيف"], "hi": ["क्या", "कौन", "कब", "कहाँ", "कैसे"],
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
CODE = re.compile(r"[A-Za-z_][\w]*(?:[._:/-][A-Za-z0-9_]+)+|--?[a-z][\w-]+|\w*\d[\w.,-]*\w")
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def pieces_of(paragraph: str) -> list[str]:
    """Its sentences, where it has any worth the name."""
    return [x for x in SPLIT.split(paragraph) if x and len(x) > 8] or [paragraph]


class Maker:
    """Writes queries for passages; one random stream, so a seed fixes everything."""

    chinese_words = True

    def __init__(self, docs: list[dict], seed: int) -> None:
        self.rng = random.Random(seed)
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

    def rare(self, text: str, lang: str) -> str:
        """What only few passages hold: identifiers, numbers, names, or else its rarest words; one to four of them."""
        rng = self.rng
        units = list(dict.fromkeys([*CODE.findall(text), *self.units(text)]))
        marked = [u for u in units if CODE.fullmatch(u) or any(c.isdigit() for c in u) or (u[:1].isupper() and not text.startswith(u))]
        ranked = sorted(units, key=lambda u: -self.weight(u, lang) * rng.uniform(0.6, 1.0))[:5]
        pool = marked if marked and rng.random() < 0.6 else ranked
        chosen = rng.sample(pool, min(len(pool), rng.randint(1, 4)))
        if len(chosen) == 1 and len(ranked) > 1 and (len(chosen[0]) < 4 or rng.random() < 0.5):
            chosen += [u for u in ranked if u not in chosen][:1]
        return self.join(chosen, lang) or text[:40]

    def claim(self, sentence: str, lang: str) -> str:
        """The sentence as somebody else might state it: a clause of it, some words dropped, some replaced."""
        rng = self.rng
        units = self.units(sentence)
        if len(units) > 12 and rng.random() < 0.5:
            start = rng.randrange(len(units) - 8)
            units = units[start : start + rng.randint(6, 16)]
        drop = rng.choice((0.0, 0.15, 0.3))
        units = [u for u in units if rng.random() > drop * 3 / (1 + self.weight(u, lang))] or units
        if rng.random() < 0.25:
            at = rng.randrange(len(units))
            units = units[at:] + units[:at]
        return "".join(units) if lang in ("zh", "ja") else " ".join(self.swap(units, 0.2))

    def run(self, sentence: str, lang: str) -> str:
        """A few words that follow one another."""
        units = self.units(sentence)
        start = self.rng.randrange(max(1, len(units) - 3))
        return self.join(self.swap(units[start : start + self.rng.randint(2, 9)], 0.2), lang)

    def gloss(self, doc: dict) -> str:
        lemmas = doc["lemmas"]
        also = f"also called {' or '.join(lemmas[1:3])}, " if len(lemmas) > 1 and self.rng.random() < 0.7 else ""
        head = lemmas[0]
        text = self.rng.choice(GLOSS).format(l=head, L=head[:1].upper() + head[1:], g=doc["paras"][0], also=also, k=doc["kind"] or doc["part"])
        if len(doc["paras"]) > 1 and self.rng.random() < 0.4:
            text += " " + doc["paras"][1]
        return text

    def entry(self, doc: dict) -> str:
        """A query for a synset of WordNet."""
        rng = self.rng
        kind = rng.random()
        return rng.choice(LEMMA).format(rng.choice(doc["lemmas"])) if kind < 0.7 else self.cloze(doc["paras"][0], "en") if kind < 0.85 else doc["paras"][0]
