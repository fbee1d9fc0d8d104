"""Token ids of pairs in a template: only query and document are cut, never what the template says, its end least of all.

A prompt that is cut at its end does not ask for an answer any more, and the scores mean nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.api import CheckpointTokenizer, Encoding, ModelConfig, Pair, PrefixEncoder, ZooError, tokenizer_faults
from zoo_decoder.template import Piece, Template

REMEMBERED = 4096
"""Texts of fixed pieces (one an instruction) whose ids are kept."""


@dataclass(frozen=True)
class Prompt:
    """A pair in the template. ``base`` are the ids up to where the document begins, as they are without a document."""

    encoding: Encoding
    base: Sequence[int]


class PromptTokenizer:
    """Encodes pairs in at most ``max_length`` tokens, the piece of the query in at most ``query_max_length``.

    ``instruction`` is used for pairs that bring none; ``instruction_form`` is what stands for {instruction} in the template if there is
    one, with a place of that name.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        template: Template,
        *,
        max_length: int,
        query_max_length: int,
        instruction: str = "",
        instruction_form: str = "{instruction}",
    ) -> None:
        loaded = CheckpointTokenizer.load(folder, config)
        loaded.check_vocabulary()
        self._loaded, self._template = loaded, template
        self._max_length, self._query_limit = max_length, query_max_length
        self._instruction, self._form = instruction, Piece(instruction_form, frozenset())
        self._encoder = PrefixEncoder.of(loaded.tokenizer)
        self._fixed = functools.lru_cache(maxsize=REMEMBERED)(self._ids_of)
        self.padding: Mapping[str, int] = {"input_ids": loaded.pad_id(0)}
        self._room("")  # an error now is better than one at the first pair

    def token_id(self, text: str) -> int:
        """The id of a token by its text. Raises ZooError if the text is several tokens, or none."""
        ids = self._ids_of(text)
        if len(ids) != 1:
            raise ZooError(f"'{text}' is {len(ids)} tokens of {self._loaded.path}; what is scored must be one")
        return ids[0]

    def encode(self, pairs: Sequence[Pair]) -> list[Prompt]:
        """One prompt a pair, in order."""
        with tokenizer_faults(self._loaded.path):
            return self._joined(pairs) if self._template.joined else self._apart(pairs)

    def _joined(self, pairs: Sequence[Pair]) -> list[Prompt]:
        """Query and document in one text, which is cut at its end."""
        piece = self._template.query
        texts, bases, rooms = [], [], []
        for pair in pairs:
            said = self._said(pair)
            query = self._cut_text(pair.query)
            texts.append(piece.filled(query=query, document=pair.passage, instruction=said))
            bases.append(piece.filled(query=query, instruction=said))
            rooms.append(self._room(said))
        wanted = max(rooms, default=0) + 1
        contents, without = self._encoder.encode(texts, wanted), self._encoder.encode(bases, wanted)
        prompts = []
        for pair, ids, base, room in zip(pairs, contents, without, rooms, strict=True):
            before, after = self._ends(self._said(pair))
            encoding = self._encoding(
                [*before, *ids[:room], *after],
                passage_truncated=len(ids) > room,
                query_truncated=len(base) > room or len(self._cut_text(pair.query)) < len(pair.query),
            )
            prompts.append(Prompt(encoding, [*before, *base[:room]]))
        return prompts

    def _apart(self, pairs: Sequence[Pair]) -> list[Prompt]:
        """Query and document by themselves: each has its own limit, and the document what is left."""
        template = self._template
        said = [self._said(pair) for pair in pairs]
        rooms = [self._room(each) for each in said]
        wanted = max(rooms, default=0) + 1
        queries = self._encoder.encode(
            [template.query.filled(query=pair.query, instruction=each) for pair, each in zip(pairs, said, strict=True)],
            wanted,
        )
        documents = self._encoder.encode(
            [
                template.document.filled(document=pair.passage, instruction=each)
                for pair, each in zip(pairs, said, strict=True)
            ],
            wanted,
        )
        prompts = []
        for query, document, instruction, room in zip(queries, documents, said, rooms, strict=True):
            before, after = self._ends(instruction)
            between = self._all(template.between, instruction)
            empty = self._fixed(template.document.filled(instruction=instruction))
            kept_query = query[: min(self._query_limit, room)]
            kept = document[: room - len(kept_query)]
            start = [*before, *kept_query, *between]
            encoding = self._encoding(
                [*start, *kept, *after],
                passage_truncated=len(kept) < len(document),
                query_truncated=len(kept_query) < len(query),
            )
            prompts.append(Prompt(encoding, [*start, *empty]))
        return prompts

    def _encoding(self, ids: list[int], *, passage_truncated: bool, query_truncated: bool) -> Encoding:
        unknown = self._loaded.unknown_id
        return Encoding(
            {"input_ids": ids}, passage_truncated=passage_truncated, query_truncated=query_truncated,
            unknown=0 if unknown is None else ids.count(unknown),
        )  # fmt: skip

    def _said(self, pair: Pair) -> str:
        """What stands for {instruction}; nothing if there is no instruction."""
        instruction = pair.instruction or self._instruction
        return self._form.filled(instruction=instruction) if instruction else ""

    def _cut_text(self, query: str) -> str:
        """The query's text up to its limit in tokens, for a template that tokenises it with the document."""
        if len(query.encode("utf-8", "surrogatepass")) <= self._query_limit:
            return query  # a token is a byte at least
        encoding = self._loaded.tokenizer.encode(query, add_special_tokens=False)
        return query if len(encoding.ids) <= self._query_limit else query[: encoding.offsets[self._query_limit - 1][1]]

    def _room(self, said: str) -> int:
        """Tokens that are left for query and document. Raises ZooError if there are none."""
        before, after = self._ends(said)
        fixed = (
            len(before) + len(after) + (0 if self._template.joined else len(self._all(self._template.between, said)))
        )
        if fixed >= self._max_length:
            raise ZooError(
                f"a length of {self._max_length} leaves no room beside the {fixed} tokens of the template: use a larger `max_length`"
            )
        return self._max_length - fixed

    def _ends(self, said: str) -> tuple[list[int], list[int]]:
        return self._all(self._template.before, said), self._all(self._template.after, said)

    def _all(self, pieces: Sequence[Piece], said: str) -> list[int]:
        return [token for piece in pieces for token in self._fixed(piece.filled(instruction=said))]

    def _ids_of(self, text: str) -> list[int]:
        with tokenizer_faults(self._loaded.path):
            ids: list[int] = self._loaded.tokenizer.encode(text, add_special_tokens=False).ids
        return ids
