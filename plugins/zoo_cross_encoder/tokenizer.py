"""Token ids of [query, passage] pairs, identical to the reference's, on the ``tokenizers`` package alone.

Reference: FlagEmbedding 1.4 ``BaseReranker.compute_score_single_gpu``: query and passage are tokenised separately without special
tokens, each cut to its own limit, then joined by transformers' ``prepare_for_model(..., truncation="only_second")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from zoo.api import CheckpointTokenizer, Encoding, ModelConfig, Pair, PrefixEncoder, ZooError, tokenizer_faults


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

    def __init__(self, folder: Path, config: ModelConfig, *, max_length: int, query_max_length: int) -> None:
        loaded = CheckpointTokenizer.load(folder, config)
        loaded.check_vocabulary()
        with tokenizer_faults(loaded.path):
            self._template = Template.of(loaded.tokenizer)
        if max_length <= self._template.size:
            raise ZooError(
                f"a length of {max_length} leaves no room beside {self._template.size} special tokens: use a larger `max_length`"
            )
        self._room = max_length - self._template.size
        self._query_limit, self._passage_limit = min(query_max_length, self._room), max_length
        self._from_left = loaded.truncates_left
        self._prefixes = PrefixEncoder.of(loaded.tokenizer, whole=self._from_left)
        self.padding: Mapping[str, int] = {"input_ids": loaded.pad_id(), "token_type_ids": 0}
        self._path, self._unknown = loaded.path, loaded.unknown_id

    def encode(self, pairs: Sequence[Pair]) -> list[Encoding]:
        """One encoding a pair, in order."""
        # One token more than can be kept tells that a text was truncated.
        with tokenizer_faults(self._path):
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
            unknown=0 if self._unknown is None else kept_query.count(self._unknown) + kept_passage.count(self._unknown),
        )

    def _cut(self, ids: list[int], limit: int) -> list[int]:
        if len(ids) <= limit:
            return ids
        return ids[len(ids) - limit :] if self._from_left else ids[:limit]
