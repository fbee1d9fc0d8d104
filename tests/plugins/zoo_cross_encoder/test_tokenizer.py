"""Token ids equal those of the reference: FlagEmbedding's procedure on transformers' tokenizers."""

from __future__ import annotations

import functools
import json
import lzma
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from conftest import SHARED
from random_checkpoints import bert_folder
from zoo.checkpoints.model_config import ModelConfig, read_config
from zoo.errors import ZooError
from zoo.tokens.tokenizer_file import CheckpointTokenizer, vocabulary_size
from zoo.types import Pair
from zoo_cross_encoder.tokenizer import PairTokenizer

pytestmark = [pytest.mark.export, pytest.mark.lowest]

REAL = SHARED / "assets" / "tokenizer" / "bge-reranker-v2-m3"

TEXTS = [
    "",
    " ",
    "what is panda?",
    "大熊猫是中国特有的熊类动物。",
    "パンダは何を食べますか",
    "Что такое панда? Это медведь.",
    "ما هي الباندا؟",
    "विशाल पांडा क्या है",
    "👩‍👩‍👧‍👦🐼 e\u0301 ﬁ ½ Å ２０２６",
    "</s><s> <pad> <mask> [SEP] [CLS] <unk>",
    "a\u200bb\u00a0c\u3000d\r\n\te",
    "\x00\x07 \ufffd \U0001f43c \u0300\u0300",
    "x" * 3000,
    "the giant panda " * 800,
    "熊猫" * 1500,
]

multilingual = st.text(
    alphabet=st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("熊猫吃竹子 панда ไทยภาษา ▁</s><mask>🐼👩‍👧"),
    ),
    max_size=60,
)
pair_texts = st.one_of(multilingual, st.lists(multilingual, max_size=30).map(" ".join), st.sampled_from(TEXTS))

Reference = Callable[[str, str, int, int], tuple[list[int], list[int] | None]]


def real_folder(folder: Path) -> Path:
    if not REAL.is_dir():
        pytest.skip("bge-reranker-v2-m3's own tokenizer is not beside this checkout")
    shutil.copytree(REAL, folder)
    (folder / "tokenizer.json").write_bytes(lzma.decompress((folder / "tokenizer.json.xz").read_bytes()))
    return folder


@pytest.fixture(scope="module", params=["embedded", "bge-reranker-v2-m3", "bert", "bert-cased", "cut-left"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    place = tmp_path_factory.mktemp("tokenizer") / request.param
    if request.param == "embedded":
        return tiny
    if request.param == "bge-reranker-v2-m3":
        return real_folder(place)
    if request.param == "bert":
        return bert_folder(place)
    if request.param == "bert-cased":
        return bert_folder(place, do_lower_case=False, strip_accents=False, tokenize_chinese_chars=False)
    return bert_folder(place, truncation_side="left")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    """FlagEmbedding 1.4's preparation of a pair, on the tokenizer that transformers makes of the folder."""
    transformers = pytest.importorskip("transformers", reason="the reference tokenizer is transformers'")
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast

    def prepare(query: str, passage: str, max_length: int, query_max_length: int) -> tuple[list[int], list[int] | None]:
        kwargs = {"return_attention_mask": False, "add_special_tokens": False, "truncation": True}
        query_ids = tokenizer(query, max_length=query_max_length, **kwargs)["input_ids"]
        passage_ids = tokenizer(passage, max_length=max_length, **kwargs)["input_ids"]
        item = tokenizer.prepare_for_model(
            query_ids, passage_ids, truncation="only_second", max_length=max_length, padding=False
        )
        return item["input_ids"], item.get("token_type_ids")

    return prepare


def config_in(folder: Path) -> ModelConfig:
    return read_config(folder) if (folder / "config.json").is_file() else ModelConfig()


@functools.cache
def opened(folder: Path, max_length: int, query_max_length: int) -> PairTokenizer:
    """A real vocabulary takes a second to load, and hypothesis asks for it at every example."""
    return PairTokenizer(folder, config_in(folder), max_length=max_length, query_max_length=query_max_length)


def check(
    folder: Path, reference: Reference, pairs: Sequence[tuple[str, str]], max_length: int, query_max_length: int
) -> None:
    tokenizer = opened(folder, max_length, query_max_length)
    for pair, encoding in zip(pairs, tokenizer.encode([Pair(*pair) for pair in pairs]), strict=True):
        ids, types = reference(*pair, max_length, query_max_length)
        assert list(encoding.features["input_ids"]) == ids, pair
        if types is not None:
            assert list(encoding.features["token_type_ids"]) == types, pair


@pytest.mark.parametrize(("max_length", "query_max_length"), [(512, 384), (64, 48), (12, 4)])
def test_known_hard_texts_have_the_references_ids(
    folder: Path, reference: Reference, max_length: int, query_max_length: int
) -> None:
    pairs = [(query, passage) for query in TEXTS for passage in TEXTS]
    check(folder, reference, pairs, max_length, query_max_length)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(pair_texts, pair_texts), min_size=1, max_size=4),
    limits=st.sampled_from([(512, 384), (40, 20)]),
)
def test_any_text_has_the_references_ids(
    folder: Path, reference: Reference, pairs: list[tuple[str, str]], limits: tuple[int, int]
) -> None:
    check(folder, reference, pairs, *limits)


def test_a_pair_is_wrapped_as_the_model_was_trained(tiny: Path) -> None:
    tokenizer = PairTokenizer(tiny, config_in(tiny), max_length=512, query_max_length=512)
    [encoding] = tokenizer.encode([Pair("what is panda?", "hi")])
    ids = list(encoding.features["input_ids"])
    middle = ids.index(2)
    assert ids[0] == 0
    assert ids[middle : middle + 2] == [2, 2]
    assert ids[-1] == 2
    assert ids.count(2) == 3
    assert (encoding.passage_truncated, encoding.query_truncated) == (False, False)


def test_a_query_that_leaves_no_room_is_cut_to_what_the_model_can_read(tiny: Path) -> None:
    tokenizer = PairTokenizer(tiny, config_in(tiny), max_length=32, query_max_length=512)
    [encoding] = tokenizer.encode([Pair("熊猫 panda " * 100, "a passage")])
    assert encoding.length == 32
    assert (encoding.passage_truncated, encoding.query_truncated) == (True, True)
    assert list(encoding.features["input_ids"])[-3:] == [2, 2, 2]


def test_truncation_is_told_exactly(tiny: Path) -> None:
    whole = PairTokenizer(tiny, config_in(tiny), max_length=512, query_max_length=512)
    [full] = whole.encode([Pair("a b c", "d e f g")])
    for room, cut in ((full.length, False), (full.length - 1, True)):
        [encoding] = PairTokenizer(tiny, config_in(tiny), max_length=room, query_max_length=room).encode(
            [Pair("a b c", "d e f g")]
        )
        assert encoding.passage_truncated is cut


def test_the_vocabulary_is_counted_with_tokens_that_the_configuration_adds(tiny: Path, tmp_path: Path) -> None:
    for path in tiny.glob("*token*.json"):
        shutil.copy(path, tmp_path)

    def size() -> int:
        return vocabulary_size(CheckpointTokenizer.load(tmp_path, ModelConfig()).tokenizer)

    plain = size()
    assert plain == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config.setdefault("added_tokens_decoder", {})[str(plain)] = {"content": "<one more>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert size() == plain + 1
    with pytest.raises(ZooError, match=rf"knows {plain + 1} tokens, the model only {plain}"):
        PairTokenizer(tmp_path, ModelConfig(vocab_size=plain), max_length=512, query_max_length=512)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", "not a tokenizer that the tokenizers package can read"),
        ("tokenizer.json", None, "cannot be read"),
        ("tokenizer_config.json", "[", "is not JSON"),
        ("tokenizer_config.json", '{"pad_token": "<nothing>"}', "no padding token '<nothing>'"),
    ],
)
def test_a_damaged_tokenizer_is_named(tiny: Path, tmp_path: Path, name: str, content: str | None, said: str) -> None:
    for path in tiny.glob("*token*.json"):
        shutil.copy(path, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ZooError, match=said) as caught:
        PairTokenizer(tmp_path, config_in(tmp_path), max_length=512, query_max_length=512)
    assert str(tmp_path) in str(caught.value)
