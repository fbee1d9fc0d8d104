"""A reranker in the way of decoders: an instruction in front, padding on the left, the score read at the last token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from zoo.api import Architecture, Encoding, Encodings, InputError, Option, Pair, Scores, Tensors, hookimpl

BETWEEN = " ? "


class YesNo(Architecture):
    """Reads ``instruction query ? passage``; the passage is cut, never the end of the prompt."""

    options = (Option(name="instruction", default="does it answer: ", help="What stands before each query."),)

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        path = self.checkpoint.folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(path, None, "is missing")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._before, self._between = self._ids(self.chosen["instruction"]), self._ids(BETWEEN)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        groups: Mapping[str, int] = {query: n for n, query in enumerate(dict.fromkeys(pair.query for pair in pairs))}
        rows = [self._encoding(pair) for pair in pairs]
        shared = [min(len(self._before), row.length) for row in rows]
        return Encodings(rows, {"input_ids": 1}, "left", [groups[pair.query] for pair in pairs], shared)

    def _encoding(self, pair: Pair) -> Encoding:
        room = self.max_length - len(self._before) - len(self._between) - 1
        query, passage = self._ids(pair.query), self._ids(pair.passage)
        kept_query = query[: max(room // 2, 1)]
        kept = passage[: max(room - len(kept_query), 0)]
        ids = [*self._before, *kept_query, *self._between, *kept, 2]
        return Encoding({"input_ids": ids}, len(kept) < len(passage), len(kept_query) < len(query))

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        scores: Scores = outputs["logits"][:, 0].astype("float32")
        return scores


@hookimpl
def zoo_architectures() -> Mapping[str, str]:
    return {"yes-no": "zoo_yes_no:YesNo"}
