"""A checkpoint's tokenizer gives the ids that transformers' own class gives: its file decides, and what that class overrules."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from families import TOKENIZERS, trained
from zoo.checkpoints.model_config import ModelConfig
from zoo.errors import InputError
from zoo.tokens.tokenizer_file import CLASS_OF_TYPE, OVERRULING, CheckpointTokenizer

pytestmark = [pytest.mark.export]

TEXTS = [
    "What is Panda?",
    "Éclair naïve STRASSE ß",
    "大熊猫吃什么",
    " leading  and   inner spaces",
    "a[SEP]b",
    "ﬁ ½ é",
    "",
]


def save(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any] | None = None, **config: Any) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def load(folder: Path, **config: Any) -> CheckpointTokenizer:
    return CheckpointTokenizer.load(folder, ModelConfig(**config))


def check(folder: Path, **config: Any) -> None:
    """Ids of ``TEXTS`` equal those of AutoTokenizer on the same folder."""
    transformers = pytest.importorskip("transformers", reason="the reference is transformers")
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer = load(folder, **config).tokenizer
    for text in TEXTS:
        assert (
            tokenizer.encode(text, add_special_tokens=False).ids
            == reference(text, add_special_tokens=False)["input_ids"]
        ), text


@pytest.mark.slow  # it imports transformers
@pytest.mark.parametrize("lower_in_file", [True, False])
@pytest.mark.parametrize("settings", [{}, {"do_lower_case": True}, {"do_lower_case": False}, {"strip_accents": False}])
@pytest.mark.parametrize(
    "class_name",
    ["PreTrainedTokenizerFast", "BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "MPNetTokenizer", None],
)
def test_only_the_classes_that_overrule_a_bert_normaliser_do(
    tmp_path: Path, class_name: str | None, settings: dict[str, Any], lower_in_file: bool
) -> None:
    named = {"tokenizer_class": class_name} if class_name else {}
    folder = save(
        tmp_path, trained("bert" if lower_in_file else "bert-cased"), {**named, **settings}, model_type="bert"
    )
    check(folder, model_type="bert")


def test_a_checkpoint_without_settings_has_the_class_of_its_type(tmp_path: Path) -> None:
    check(save(tmp_path, trained("bert-cased"), model_type="bert"), model_type="bert")
    check(save(tmp_path, trained("bert-cased"), model_type="modernbert"), model_type="modernbert")


def test_the_class_may_stand_in_config_json(tmp_path: Path) -> None:
    config = {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}
    check(save(tmp_path, trained("bert-cased"), {}, **config), **config)


@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}, {"add_prefix_space": False}])
@pytest.mark.parametrize("class_name", ["RobertaTokenizer", "PreTrainedTokenizerFast"])
def test_a_space_before_the_first_word_is_what_the_settings_say(
    tmp_path: Path, class_name: str, settings: dict[str, Any], in_file: bool
) -> None:
    tokenizer = Tokenizer.from_str(trained("roberta").to_str())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=in_file)
    save(tmp_path, tokenizer, {"tokenizer_class": class_name, **settings}, model_type="roberta")
    check(tmp_path, model_type="roberta")


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_kind_gives_the_ids_of_transformers(tmp_path: Path, kind: str) -> None:
    check(
        save(tmp_path, trained(kind), {"tokenizer_class": "PreTrainedTokenizerFast"}, model_type="bert"),
        model_type="bert",
    )


def test_a_special_token_that_is_known_as_a_word_alone_is_taken_out_of_texts_as_transformers_does(
    tmp_path: Path,
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "[SEP]": 3, "[": 4}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "sep_token": "[SEP]",
        "unk_token": {"content": "[UNK]", "__type": "AddedToken"},
    }
    check(save(tmp_path, tokenizer, settings, model_type="bert"), model_type="bert")
    assert load(tmp_path).tokenizer.encode("a[SEP]b", add_special_tokens=False).ids == [1, 3, 2]


def test_the_overruling_classes_are_those_of_transformers() -> None:
    auto = pytest.importorskip("transformers.models.auto.tokenization_auto", reason="the list is read in transformers")
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

    found = {
        kind: fast.removesuffix("Fast")
        for kind, (_, fast) in auto.TOKENIZER_MAPPING_NAMES.items()
        if kind in CLASSIFIERS and fast and fast.removesuffix("Fast") in OVERRULING
    }
    assert found == dict(CLASS_OF_TYPE)


def padded_by(folder: Path, settings: dict[str, Any] | None, **config: Any) -> int:
    save(folder, trained("xlm-roberta"), settings)
    return load(folder, **config).pad_id()


def test_the_padding_is_the_tokenizers_own_then_that_of_config_json_then_a_usual_one(tmp_path: Path) -> None:
    pad = trained("xlm-roberta").token_to_id("<pad>")
    assert padded_by(tmp_path, {"pad_token": "<s>"}, pad_token_id=7) == trained("xlm-roberta").token_to_id("<s>")
    assert padded_by(tmp_path, {}, pad_token_id=7) == 7
    (tmp_path / "tokenizer_config.json").unlink()
    assert padded_by(tmp_path, None, pad_token_id=7) == 7
    assert padded_by(tmp_path, None) == pad
    bare = save(tmp_path, Tokenizer(models.WordLevel({"a": 0, "u": 1}, unk_token="u")))
    assert load(bare).pad_id(0) == 0
    with pytest.raises(InputError, match="names no padding token: set 'pad_token'"):
        load(bare).pad_id()


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "deberta"])
def test_unknown_text_has_the_id_that_is_said(tmp_path: Path, kind: str) -> None:
    loaded = load(save(tmp_path, trained(kind), {}))
    assert loaded.unknown_id is not None
    assert set(loaded.tokenizer.encode("ၵ", add_special_tokens=False).ids) & {loaded.unknown_id}


def test_a_byte_level_vocabulary_knows_everything(tmp_path: Path) -> None:
    assert load(save(tmp_path, trained("roberta"), {})).unknown_id is None


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ('{"do_lower_case": "no"}', "do_lower_case"),
        ('{"pad_token": 5}', "pad_token"),
        ('{"pad_token": {"text": "x"}}', "pad_token"),
        ('{"added_tokens_decoder": ["<s>"]}', "added_tokens_decoder"),
        ('{"added_tokens_decoder": {"0": {"lstrip": false}}}', "content"),
        ('{"added_tokens_decoder": {"0": {"content": "a", "lstrip": 2}}}', "lstrip"),
        ('{"tokenizer_class": false}', "tokenizer_class"),
        ('{"additional_special_tokens": "a"}', "additional_special_tokens"),
        ("null", "not a JSON object"),
    ],
)
def test_settings_of_wrong_types_are_one_clear_error(tmp_path: Path, settings: str, key: str) -> None:
    save(tmp_path, trained("bert"))
    (tmp_path / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    with pytest.raises(InputError, match=key) as caught:
        load(tmp_path)
    assert str(tmp_path / "tokenizer_config.json") in str(caught.value)


def damaged(table: bytes, change: Callable[[bytes], bytes]) -> str:
    return base64.b64encode(change(table)).decode()


def test_a_damaged_table_of_a_normaliser_is_refused_by_name_and_rust_says_nothing(
    tmp_path: Path, tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
    [part] = [part for part in content["normalizer"]["normalizers"] if part["type"] == "Precompiled"]
    table = base64.b64decode(part["precompiled_charsmap"])
    for value in (
        "", "!!!", 5, None, damaged(table, lambda t: t[:100]), damaged(table, lambda t: b"\xff\xff\xff\xff" + t[4:]),
        damaged(table, lambda t: t[:-1] + b"\xff"), damaged(table, lambda t: b"\1" + t[1:]),
    ):  # fmt: skip
        part["precompiled_charsmap"] = value
        (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(InputError, match="damaged 'precompiled_charsmap'"):
            load(tmp_path)
    assert "panicked" not in capfd.readouterr().err


def test_a_good_table_passes(tiny: Path) -> None:
    assert load(tiny).tokenizer.encode("ﬁ", add_special_tokens=False).ids


def test_a_panic_of_the_tokenizer_is_an_error_that_names_the_file(tmp_path: Path, tiny: Path) -> None:
    from zoo.types import Pair
    from zoo_cross_encoder.tokenizer import PairTokenizer

    content = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
    [part] = [part for part in content["normalizer"]["normalizers"] if part["type"] == "Precompiled"]
    table = bytearray(base64.b64decode(part["precompiled_charsmap"]))
    for place in range(4, 20_000):  # inside the trie, which nothing can be told of before it is walked
        table[place] ^= 0x5A
    part["precompiled_charsmap"] = base64.b64encode(table).decode()
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        PairTokenizer(tmp_path, ModelConfig(), max_length=64, query_max_length=64).encode([Pair("ﬁ ½", "熊猫 ﬁ")])


def test_other_normalisers_are_left_alone(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(trained("bert-cased").to_str())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    check(
        save(tmp_path, tokenizer, {"tokenizer_class": "BertTokenizer", "do_lower_case": False}, model_type="bert"),
        model_type="bert",
    )
