"""Token ids of [query, passage] pairs, identical to the reference's, on the ``tokenizers`` package alone.

Reference: FlagEmbedding 1.4 ``BaseReranker.compute_score_single_gpu``: query and passage are tokenised separately without special
tokens, each cut to its own limit, then joined by transformers' ``prepare_for_model(..., truncation="only_second")``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from zoo.api import Encoding, InputError, Pair, ZooError
from zoo_cross_encoder.prefix import PrefixCutter
from zoo_cross_encoder.prefix_encoder import PrefixEncoder


@dataclass(frozen=True)
class Template:
    """Where the special tokens stand around a pair: ``before`` query ``between`` passage ``after``, with token types."""

    before: tuple[list[int], list[int]]
    between: tuple[list[int], list[int]]
    after: tuple[list[int], list[int]]
    query_type: int
    passage_type: int

    @property
    def size(self) -> int:
        """Special tokens added to a pair."""
        return sum(len(ids) for ids, _ in (self.before, self.between, self.after))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Template:
        """Learn the template by having the tokenizer's own post-processor join two known texts."""
        query, passage = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", "b c"))
        joined = tokenizer.post_process(query, passage, add_special_tokens=True)
        start = joined.special_tokens_mask.index(0)
        middle = start + len(query.ids)
        resume = next((i for i in range(middle, len(joined.ids)) if not joined.special_tokens_mask[i]), -1)
        end = resume + len(passage.ids)
        if joined.ids[start:middle] != query.ids or resume < 0 or joined.ids[resume:end] != passage.ids:
            raise ZooError("the tokenizer's post-processor does not join a query and a passage in this order")

        def special(span: slice) -> tuple[list[int], list[int]]:
            return joined.ids[span], joined.type_ids[span]

        return cls(
            special(slice(0, start)),
            special(slice(middle, resume)),
            special(slice(end, None)),
            joined.type_ids[start],
            joined.type_ids[resume],
        )


class PairTokenizer:
    """Encodes pairs as ``before query between passage after`` in at most ``max_length`` tokens.

    The query is cut to ``query_max_length`` tokens, the passage to what is left. Where the query leaves no room, transformers gives up
    and returns more than ``max_length`` tokens; here the passage goes and the query is cut to fit, because a model cannot read past its
    positions.
    """

    def __init__(self, folder: Path, *, max_length: int, query_max_length: int) -> None:
        settings = _settings(folder)
        self._tokenizer = _load(folder / "tokenizer.json", settings)
        self._template = Template.of(self._tokenizer)
        if max_length <= self._template.size:
            raise ZooError(
                f"a length of {max_length} leaves no room beside {self._template.size} special tokens: use a larger `max_length`"
            )
        self._room = max_length - self._template.size
        self._query_limit, self._passage_limit = min(query_max_length, self._room), max_length
        self._from_left = settings.get("truncation_side") == "left"
        self._prefixes = PrefixEncoder(self._tokenizer, None if self._from_left else PrefixCutter.of(self._tokenizer))
        self.padding: Mapping[str, int] = {"input_ids": self._pad_id(settings, folder), "token_type_ids": 0}
        self.vocabulary_size = _vocabulary_size(self._tokenizer)

    def encode(self, pairs: Sequence[Pair]) -> list[Encoding]:
        """One encoding a pair, in order."""
        # One token more than can be kept tells that a text was truncated.
        queries = self._prefixes.encode([pair.query for pair in pairs], self._query_limit + 1)
        passages = self._prefixes.encode([pair.passage for pair in pairs], self._room + 1)
        return [self._join(query, passage) for query, passage in zip(queries, passages, strict=True)]

    def _join(self, query: list[int], passage: list[int]) -> Encoding:
        kept_query = self._cut(query, self._query_limit)
        kept_passage = self._cut(passage, min(self._passage_limit, self._room - len(kept_query)))
        template = self._template
        (before, before_types), (between, between_types), (after, after_types) = (
            template.before,
            template.between,
            template.after,
        )
        return Encoding(
            {
                "input_ids": [*before, *kept_query, *between, *kept_passage, *after],
                "token_type_ids": [
                    *before_types,
                    *[template.query_type] * len(kept_query),
                    *between_types,
                    *[template.passage_type] * len(kept_passage),
                    *after_types,
                ],
            },
            passage_truncated=len(kept_passage) < len(passage),
            query_truncated=len(kept_query) < len(query),
        )

    def _cut(self, ids: list[int], limit: int) -> list[int]:
        if len(ids) <= limit:
            return ids
        return ids[len(ids) - limit :] if self._from_left else ids[:limit]

    def _pad_id(self, settings: Mapping[str, Any], folder: Path) -> int:
        token = _content(settings.get("pad_token")) or "[PAD]"
        pad: int | None = self._tokenizer.token_to_id(token)
        if pad is None:
            raise InputError(folder / "tokenizer.json", None, f"has no padding token '{token}'")
        return pad


def _settings(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json`` over ``special_tokens_map.json``; both may be absent."""
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                merged.update(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise InputError(path, None, f"is not a JSON object: {error}") from error
    return merged


def _load(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(_with_bert_settings(path.read_bytes(), settings))
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from error
    except Exception as error:  # tokenizers raises bare Exception for a file it does not understand
        raise InputError(path, None, f"is not a tokenizer that the tokenizers package can read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # transformers adds the tokens of tokenizer_config.json that tokenizer.json lacks.
    for entry in (settings.get("added_tokens_decoder") or {}).values():
        if tokenizer.token_to_id(entry["content"]) is None:
            flags = {
                key: entry[key] for key in ("lstrip", "rstrip", "normalized", "single_word", "special") if key in entry
            }
            tokenizer.add_tokens([AddedToken(entry["content"], **flags)])
    return tokenizer


def _with_bert_settings(file: bytes, settings: Mapping[str, Any]) -> bytes:
    """Let ``tokenizer_config.json`` overrule a BERT normaliser, as ``BertTokenizerFast.__init__`` does."""
    if b"BertNormalizer" not in file:
        return file  # parsing a vocabulary of 250,000 pieces for nothing takes 0.2 s
    content = json.loads(file)
    normalizer = content.get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        return file
    for setting, key, default in (
        ("do_lower_case", "lowercase", True),
        ("strip_accents", "strip_accents", None),
        ("tokenize_chinese_chars", "handle_chinese_chars", True),
    ):
        normalizer[key] = settings.get(setting, default)
    return json.dumps(content).encode()


def _vocabulary_size(tokenizer: Tokenizer) -> int:
    """Tokens with the added ones. The tokenizer's own count of both makes a copy of the whole vocabulary first."""
    added = tokenizer.get_added_tokens_decoder().values()
    beside = sum(tokenizer.model.token_to_id(token.content) is None for token in added)
    return int(tokenizer.get_vocab_size(with_added_tokens=False)) + beside


def _content(token: object) -> str | None:
    """A special token is written as a string or as an object with its ``content``."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None
