"""A checkpoint's tokenizer, on the ``tokenizers`` package alone, set up as transformers 4 sets it up.

``tokenizer.json`` decides. transformers overrules it in a few places, each for classes of its own: BERT's classes overrule their
normaliser (``BertTokenizerFast.__init__``), and every class overrules ``add_prefix_space`` (``PreTrainedTokenizerFast.__init__``). Which
class that is, ``AutoTokenizer`` reads in tokenizer_config.json, then in config.json, then finds by the model's type.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from zoo.checkpoints.model_config import ModelConfig, checked
from zoo.errors import InputError, ZooError
from zoo.strict_json import read_object

LOWERCASE = ("do_lower_case", "lowercase", True)
STRIP_ACCENTS = ("strip_accents", "strip_accents", None)
CHINESE = ("tokenize_chinese_chars", "handle_chinese_chars", True)
BERT_LIKE, MPNET_LIKE = (LOWERCASE, STRIP_ACCENTS, CHINESE), (LOWERCASE, STRIP_ACCENTS)
OVERRULING: Mapping[str, tuple[tuple[str, str, bool | None], ...]] = {
    **dict.fromkeys(
        ("BertTokenizer", "ConvBertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "FunnelTokenizer", "LayoutLMTokenizer",
         "LxmertTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer"), BERT_LIKE,
    ),
    **dict.fromkeys(("LayoutLMv2Tokenizer", "MPNetTokenizer", "RoFormerTokenizer", "SplinterTokenizer"), MPNET_LIKE),
}  # fmt: skip
"""Classes that overrule their normaliser: what tokenizer_config.json calls a setting, what the normaliser does, and the default."""
CLASS_OF_TYPE: Mapping[str, str] = {
    **dict.fromkeys(("bert", "ernie", "megatron-bert", "nezha", "qdqbert"), "BertTokenizer"),
    "convbert": "ConvBertTokenizer", "distilbert": "DistilBertTokenizer", "electra": "ElectraTokenizer", "funnel": "FunnelTokenizer",
    "layoutlm": "LayoutLMTokenizer", "layoutlmv2": "LayoutLMv2Tokenizer", "mobilebert": "MobileBertTokenizer",
    "mpnet": "MPNetTokenizer", "roformer": "RoFormerTokenizer", "squeezebert": "SqueezeBertTokenizer",
}  # fmt: skip
"""The overruling class of a model type, for a checkpoint that names no tokenizer class."""
USUAL_PADS = ("[PAD]", "<pad>")
UNKNOWN_ID = re.compile(rb'"unk_id"\s*:\s*(\d+)')
CHARSMAP = re.compile(rb'"precompiled_charsmap"\s*:\s*("[^"\\]*"|[^",}\s]+)')


class AddedTokenEntry(msgspec.Struct, frozen=True):
    """A token of ``added_tokens_decoder``."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool | None = None
    special: bool = False


class NamedToken(msgspec.Struct, frozen=True):
    """A special token that is written as an object."""

    content: str


SpecialToken = str | NamedToken | None  # read by msgspec, which needs the types themselves


class TokenizerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``tokenizer_config.json`` over ``special_tokens_map.json``; both may be absent."""

    tokenizer_class: str | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    add_prefix_space: bool | None = None
    truncation_side: str | None = None
    added_tokens_decoder: dict[str, AddedTokenEntry] | None = None
    additional_special_tokens: list[str | NamedToken] | None = None
    bos_token: SpecialToken = None
    eos_token: SpecialToken = None
    unk_token: SpecialToken = None
    sep_token: SpecialToken = None
    pad_token: SpecialToken = None
    cls_token: SpecialToken = None
    mask_token: SpecialToken = None

    @classmethod
    def read(cls, folder: Path) -> TokenizerSettings:
        """Raises InputError for a file that is not a JSON object, or has a value of a wrong type."""
        merged: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            path = folder / name
            if path.is_file():
                content = read_object(path)
                checked(content, cls, path)
                merged.update(content)
        return checked(merged, cls, folder)

    @property
    def special_tokens(self) -> list[str]:
        """Every special token that is named, once."""
        named = [
            self.bos_token,
            self.eos_token,
            self.unk_token,
            self.sep_token,
            self.pad_token,
            self.cls_token,
            self.mask_token,
        ]
        tokens = [text_of(token) for token in (*named, *(self.additional_special_tokens or ()))]
        return list(dict.fromkeys(token for token in tokens if token))


@dataclass(frozen=True)
class CheckpointTokenizer:
    """A checkpoint's tokenizer, with what its other files say of it.

    ``tokenizer`` neither truncates nor pads. ``unknown_id`` stands for what its vocabulary does not know; None if there is nothing.
    ``path`` is tokenizer.json, ``settings`` tokenizer_config.json and its relatives, ``config`` config.json.
    """

    path: Path
    tokenizer: Tokenizer
    settings: TokenizerSettings
    config: ModelConfig
    unknown_id: int | None

    @classmethod
    def load(cls, folder: Path, config: ModelConfig) -> CheckpointTokenizer:
        """The tokenizer of the checkpoint in ``folder``, whose config.json is ``config``. Raises InputError."""
        settings, path = TokenizerSettings.read(folder), folder / "tokenizer.json"
        try:
            file = path.read_bytes()
        except OSError as error:
            raise InputError(path, None, f"cannot be read: {error.strerror}") from error
        _check_charsmap(file, path)
        with tokenizer_faults(path, "is not a tokenizer that the tokenizers package can read"):
            tokenizer = Tokenizer.from_buffer(file)
            tokenizer.no_truncation()
            tokenizer.no_padding()
            _overrule(tokenizer, settings, _class_name(settings, config))
            _add_tokens(tokenizer, settings)
        return cls(path, tokenizer, settings, config, _unknown_id(tokenizer, file))

    @property
    def truncates_left(self) -> bool:
        """Whether texts are cut at their beginning, as the settings say."""
        return self.settings.truncation_side == "left"

    def pad_id(self, default: int | None = None) -> int:
        """The id that fills rows: the tokenizer's own, else config.json's. Raises InputError if there is none and no ``default``."""
        token = text_of(self.settings.pad_token)
        if token:
            named: int | None = self.tokenizer.token_to_id(token)
            if named is None:
                raise InputError(self.path, None, f"has no padding token '{token}', which its settings name")
            return named
        usual: list[int | None] = [self.tokenizer.token_to_id(token) for token in USUAL_PADS]
        found = next((pad for pad in (self.config.pad_token_id, *usual, default) if pad is not None), None)
        if found is None:
            raise InputError(
                self.path,
                None,
                "names no padding token: set 'pad_token' in tokenizer_config.json or 'pad_token_id' in config.json",
            )
        return found

    def check_vocabulary(self) -> None:
        """Raises ZooError if the tokenizer knows more tokens than the model."""
        known, size = vocabulary_size(self.tokenizer), self.config.vocab_size
        if size is not None and known > size:
            raise ZooError(
                f"{self.path.parent}: the tokenizer knows {known} tokens, the model only {size}: tokenizer.json and config.json are "
                "not of the same model"
            )


@contextmanager
def tokenizer_faults(path: Path, problem: str = "fails on a text") -> Iterator[None]:
    """Inside the block, whatever the tokenizers package raises becomes an InputError that names ``path``.

    It raises bare Exception, and Rust's panics are BaseException. Raises InputError.
    """
    try:
        yield
    except (ZooError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise InputError(path, None, f"{problem}: {error}") from error


def text_of(token: SpecialToken) -> str:
    """A special token is written as a string or as an object with its ``content``."""
    return token.content if isinstance(token, NamedToken) else token or ""


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Tokens with the added ones. The tokenizer's own count of both makes a copy of the whole vocabulary first."""
    added = tokenizer.get_added_tokens_decoder().values()
    beside = sum(tokenizer.model.token_to_id(token.content) is None for token in added)
    return int(tokenizer.get_vocab_size(with_added_tokens=False)) + beside


def _class_name(settings: TokenizerSettings, config: ModelConfig) -> str:
    named = settings.tokenizer_class or config.tokenizer_class or CLASS_OF_TYPE.get(config.model_type or "", "")
    return named.removesuffix("Fast")


def _overrule(tokenizer: Tokenizer, settings: TokenizerSettings, class_name: str) -> None:
    """Change what transformers' class changes. Both look at the parts as they were read: files of older versions are spelled otherwise."""
    normalizer, splitter = _state(tokenizer.normalizer), _state(tokenizer.pre_tokenizer)
    if class_name in OVERRULING and normalizer.get("type") == "BertNormalizer":
        for setting, key, default in OVERRULING[class_name]:
            chosen = getattr(settings, setting)
            normalizer[key] = default if chosen is None else chosen
        tokenizer.normalizer = normalizers.BertNormalizer(**_arguments(normalizer))
    if "add_prefix_space" in splitter:
        splitter["add_prefix_space"] = bool(settings.add_prefix_space)
        tokenizer.pre_tokenizer = getattr(pre_tokenizers, splitter["type"])(**_arguments(splitter))


def _state(part: Any) -> dict[str, Any]:
    """The settings of a normaliser or pre-tokenizer, with its ``type``; empty if there is none."""
    return {} if part is None else dict(json.loads(part.__getstate__()))


def _arguments(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != "type"}


def _add_tokens(tokenizer: Tokenizer, settings: TokenizerSettings) -> None:
    """Add what tokenizer.json lacks, and take named special tokens that it knows as words alone out of texts, both as transformers does."""
    for entry in (settings.added_tokens_decoder or {}).values():
        if tokenizer.token_to_id(entry.content) is None:
            flags = {name: value for name in entry.__struct_fields__[1:] if (value := getattr(entry, name)) is not None}
            tokenizer.add_tokens([AddedToken(entry.content, **flags)])
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    words = [
        token for token in settings.special_tokens if token not in added and tokenizer.token_to_id(token) is not None
    ]
    if words:
        tokenizer.add_tokens([AddedToken(word, special=True, normalized=False) for word in words])


def _unknown_id(tokenizer: Tokenizer, file: bytes) -> int | None:
    token = getattr(tokenizer.model, "unk_token", None)
    if token is not None:
        return tokenizer.token_to_id(token)  # type: ignore[no-any-return,unused-ignore]
    found = UNKNOWN_ID.search(file)  # a Unigram model keeps its own to itself
    return int(found[1]) if found else None


def _check_charsmap(file: bytes, path: Path) -> None:
    """Raises InputError for a normaliser's table that the package would panic on: 4 bytes of size, a trie of that size, then UTF-8."""
    for found in CHARSMAP.finditer(file):
        try:
            table = base64.b64decode(found[1].strip(b'"') if found[1].startswith(b'"') else b"-", validate=True)
            size = int.from_bytes(table[:4], "little")
            table[4 + size :].decode("utf-8")
            whole = 0 < size <= len(table) - 4 and not size % 4
        except ValueError:
            whole = False
        if not whole:
            raise InputError(
                path, None, "has a damaged 'precompiled_charsmap': copy the file again from where it came from"
            )
