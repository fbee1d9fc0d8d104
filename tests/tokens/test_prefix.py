"""A cut text gives the token ids that the whole text begins with, in every script and against every trick."""

from __future__ import annotations

import itertools
import lzma
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

import zoo.tokens.prefix_encoder
from conftest import SHARED
from zoo.paths import bundled
from zoo.tokens.prefix import PrefixCutter, UnigramWalls
from zoo.tokens.prefix_encoder import PrefixEncoder, RecentIds

WORDS = """
the panda eats bamboo in Sichuan , and sleeps . unbelievable internationalization Größe naïve e\u0301 \u0301 ﬁ ½ ①
大熊猫 主要 栖息 在 中国 四川 。 ， 「竹子」 研究 人员 认为 ２０２４ 年 パンダ は 竹を 食べます ｶﾞｷﾞ が か\u3099 ー
판다는 대나무를 먹는다 \u1112\u1161\u11ab ㄱㅏ ﾡￂ หมีแพนด้า กำลัง กินไผ่ ນ້ຳ ខ្ញុំ पांडा बाँस खाता क्षि है । পান্ডা
панда ест бамбук الباندا يأكل ﷺ פנדה 👩\u200d👩\u200d👧 👍🏽 🇨🇳🇩🇪 © \u200b \u00ad \ufe0f
</s> <s> <mask> <pad> <unk> </ s> <ma ▁ ▁the [SEP] [CLS] ## ``
"""
SPACES_AND_RUNS = [
    *[" ", "  ", "    ", "\n", "\r\n", "\t", "\u3000", "\u00a0", "\u2028", "\x00", "\ufffd"],
    *["a" * 120, "." * 20, "中" * 30, "𓀀", "𠀀"],
]
FRAGMENTS = WORDS.split() + SPACES_AND_RUNS
texts = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=60).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda glue: glue.join(parts))
)


def word_piece() -> Tokenizer:
    """A BERT tokenizer in miniature: every ASCII and a few other characters, alone and continuing a word."""
    letters = [*string.printable.strip(), *"大熊猫中国панд"]
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *letters, *[f"##{letter}" for letter in letters], "panda", "##boo"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    return tokenizer


def unigram(normalizer: Any = None) -> Tokenizer:
    """A Unigram tokenizer whose pieces overlap, so that what follows a point often changes the best path before it."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *[(c, -8.0) for c in "abcdefghijklmnopqrstuvwxyz中国大熊"]]
    pieces += [
        ("ab", -9.0),
        ("bc", -9.1),
        ("abc", -13.0),
        ("cd", -8.9),
        ("bcd", -12.0),
        ("中国", -9.0),
        ("国大", -8.5),
        ("大熊", -9.0),
        ("é", -8.0),
        ("qé", -8.5),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def of_checkpoint(folder: Path) -> Tokenizer:
    packed = folder / "tokenizer.json.xz"
    if packed.is_file():
        return Tokenizer.from_str(lzma.decompress(packed.read_bytes()).decode())
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


REAL = SHARED / "assets" / "tokenizer" / "bge-reranker-v2-m3"
TOKENIZERS = {
    "embedded": lambda: of_checkpoint(bundled("models") / "zoo-reranker-tiny"),
    "word-piece": word_piece,
    "unigram": unigram,
    "unigram-nfkc": lambda: unigram(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
    "bge-reranker-v2-m3": lambda: of_checkpoint(REAL),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "bge-reranker-v2-m3" and not REAL.is_dir():
        pytest.skip("the published tokenizer is not here")
    made: Tokenizer = TOKENIZERS[request.param]()
    made.no_truncation()
    made.no_padding()
    return made


@pytest.fixture(scope="module")
def cutter(tokenizer: Tokenizer) -> PrefixCutter:
    made = PrefixCutter.of(tokenizer)
    assert made is not None
    return made


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def test_no_wall_stands_inside_a_piece_of_the_vocabulary() -> None:
    pieces = ["ab", "bc", 'x"y', "\\z", "中国", "国\U00020000", "\u0301q", "\x01!", "\n,"]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *[(piece, -1.0) for piece in pieces]], unk_id=0))
    walls = UnigramWalls(tokenizer)
    for piece in pieces:
        for left, right in itertools.pairwise(piece):
            assert not walls(left, right), (left, right)
    assert all(walls(left, right) for left, right in ("ac", "ca", "国中", "yx", "z\\", "中ا"))


@settings(max_examples=150, deadline=None)
@given(text=texts)
@example(text="abcd" * 10)
@example(text="中国大熊" * 10)
@example(text="the</s>panda <mask> eats<unk>bamboo" * 3)
@example(text="か\u3099きｶﾞ" * 8)
@example(text="aqe\u0301b" * 8)
def test_ids_before_every_cut_are_those_of_the_whole(tokenizer: Tokenizer, cutter: PrefixCutter, text: str) -> None:
    whole = ids_of(tokenizer, text)
    for place in range(1, len(text)):
        if cutter.cut(text, place - 1, place) is not None:
            prefix = ids_of(tokenizer, text[:place])
            assert prefix == whole[: len(prefix)], (text[:place], text[place:])


@settings(max_examples=150, deadline=None)
@given(text=texts)
@example(text="the <mask> panda</s> eats  bamboo \u0301 a \u0301b <mask>")
def test_ids_on_both_sides_of_a_joint_make_up_the_whole(tokenizer: Tokenizer, cutter: PrefixCutter, text: str) -> None:
    whole = ids_of(tokenizer, text)
    for place in range(1, len(text)):
        if cutter.cut(text, place - 1, place) is not None and cutter.is_joint(text, place):
            assert ids_of(tokenizer, text[:place]) + ids_of(tokenizer, text[place:]) == whole, (
                text[:place],
                text[place:],
            )


@settings(max_examples=150, deadline=None)
@given(batch=st.lists(texts, max_size=6), wanted=st.integers(1, 40))
def test_the_encoder_gives_all_ids_or_at_least_as_many_as_wanted(
    tokenizer: Tokenizer, cutter: PrefixCutter, batch: Sequence[str], wanted: int
) -> None:
    encoder = PrefixEncoder(tokenizer, cutter)
    for _ in range(2):  # the second time from memory
        for text, ids in zip(batch, encoder.encode(batch, wanted), strict=True):
            whole = ids_of(tokenizer, text)
            assert ids == whole[: len(ids)]
            assert len(ids) == len(whole) or len(ids) >= wanted


@pytest.mark.parametrize("sentence", ["The giant panda eats bamboo. ", "大熊猫主要栖息在中国四川。"])
def test_ordinary_text_can_be_cut_nearly_everywhere_near(cutter: PrefixCutter, sentence: str) -> None:
    text = sentence * 200
    for end in range(1000, 1050):
        place = cutter.cut(text, 0, end)
        assert place is not None
        assert end - place < 50


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.characters, self.most = tokenizer, 0, 0

    def encode_batch(self, texts: Sequence[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        self.most = max(self.most, sum(map(len, texts)))
        return self._tokenizer.encode_batch(texts, **options)


def test_a_long_passage_costs_what_is_kept_of_it(tokenizer: Tokenizer, cutter: PrefixCutter) -> None:
    counting = Counting(tokenizer)
    encoder = PrefixEncoder(counting, cutter)  # type: ignore[arg-type]  # it has the one method that is used
    (ids,) = encoder.encode(["The giant panda eats bamboo. " * 40_000], 513)
    assert len(ids) >= 513
    assert counting.characters < 513 * 12


def test_texts_without_a_cut_are_not_tokenised_all_at_once(
    tokenizer: Tokenizer, cutter: PrefixCutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo.tokens.prefix_encoder, "AT_ONCE", 1000)
    counting = Counting(tokenizer)
    encoder = PrefixEncoder(counting, cutter)  # type: ignore[arg-type]  # it has the one method that is used
    batch = ["👍🏽" * (100 + number) for number in range(20)]
    found = encoder.encode(batch, 5)
    assert counting.characters == sum(map(len, batch))
    assert counting.most <= 1000
    assert found == [ids_of(tokenizer, text)[:5] for text in batch], "what is not wanted is not kept either"


def test_what_repeats_is_tokenised_once(tokenizer: Tokenizer, cutter: PrefixCutter) -> None:
    counting = Counting(tokenizer)
    encoder = PrefixEncoder(counting, cutter)  # type: ignore[arg-type]  # it has the one method that is used
    first = encoder.encode(["what is panda?"] * 50, 10)
    assert encoder.encode(["what is panda?"], 10) == first[:1]
    assert counting.characters == len("what is panda?")


def test_memory_of_recent_texts_is_bounded_and_forgets_the_oldest() -> None:
    recent = RecentIds(capacity=10)
    for text in ("aaa", "bbb", "ccc"):
        recent.put(text, [1])
    assert recent.get("aaa") is None
    assert recent.get("bbb") == [1]
    assert recent.get("ccc") == [1]
    recent.put("x" * 11, [1])
    assert recent.get("ccc") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel()),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Metaspace(split=False)),
        lambda t: setattr(t, "normalizer", normalizers.Replace("ab", "c")),
        lambda t: t.add_tokens([AddedToken("panda bear", normalized=True)]),
        lambda t: t.add_tokens([AddedToken("panda", normalized=False, single_word=True)]),
    ],
    ids=["byte-level", "one pre-token", "replacing normaliser", "normalised added token", "added word"],
)
def test_a_tokenizer_the_argument_does_not_cover_is_never_cut(change: Any) -> None:
    tokenizer = unigram()
    assert PrefixCutter.of(tokenizer) is not None
    change(tokenizer)
    assert PrefixCutter.of(tokenizer) is None
    (ids,) = PrefixEncoder(tokenizer, None).encode(["abc " * 100], 5)
    assert ids == ids_of(tokenizer, "abc " * 100)


def test_what_follows_an_added_token_that_takes_the_space_behind_it_is_no_joint() -> None:
    tokenizer = unigram()
    cutter = PrefixCutter.of(tokenizer)
    assert cutter is not None
    assert cutter.is_joint("ab cd", 2)
    tokenizer.add_special_tokens([AddedToken("[x]", normalized=False, rstrip=True)])
    cutter = PrefixCutter.of(tokenizer)
    assert cutter is not None
    assert not cutter.is_joint("ab cd", 2)


def test_an_added_token_is_never_cut_in_two() -> None:
    tokenizer = unigram()
    tokenizer.add_special_tokens([AddedToken("zq xk", normalized=False, lstrip=True, rstrip=True)])
    cutter = PrefixCutter.of(tokenizer)
    assert cutter is not None
    text = "ab zq xk cd"
    cuts = [place for place in range(1, len(text)) if cutter.cut(text, place - 1, place) is not None]
    assert text.index("zq") + 2 not in cuts
    whole = ids_of(tokenizer, text)
    assert cuts
    for place in cuts:
        prefix = ids_of(tokenizer, text[:place])
        assert prefix == whole[: len(prefix)]
