"""The decoder: a language model reads a prompt, and the logit of a token at its end, or of a label, is the score."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from zoo.api import (
    Architecture,
    BatchInfo,
    Checkpoint,
    CheckpointOffer,
    Encodings,
    ModelCard,
    Option,
    Pair,
    Scores,
    Session,
    Tensors,
    ZooError,
    hookimpl,
    read_config,
)
from zoo_decoder.shared_prefix import LEAST, PAST, PastShape, SharedPrefixes, common_length
from zoo_decoder.template import Template
from zoo_decoder.tokenizer import Prompt, PromptTokenizer

HEAD_SIZES = {"qwen3": 128, "gemma": 256}
"""Size of a head if config.json does not give it, as transformers' configurations have it; else it is the width's share."""
OPTIONS = (
    Option(
        name="template",
        help="What the model is asked, with {query}, {document} and {instruction}; {|} stands between pieces that are tokenised apart. "
        "'none' if the texts are in a template already.",
    ),
    Option(name="instruction", help="What is asked for, in words, for pairs that bring no instruction of their own."),
    Option(
        name="instruction_form",
        default="{instruction}",
        help="What stands for {instruction} in the template; nothing stands there if there is no instruction.",
    ),
    Option(
        name="positive", help="The token whose logit is the score. Without it the checkpoint has a classification head."
    ),
    Option(name="negative", help="The token whose logit is subtracted; without it nothing is."),
    Option(
        name="shared_prefix",
        choices=("on", "off"),
        default="on",
        help="Whether the tokens that prompts begin with in common are computed once, if the model file can.",
    ),
)


class Decoder(Architecture):
    """Qwen2, Qwen3, Gemma and their like.

    Rows are padded on the right: with a causal mask no token attends to the padding, and the graph reads the score at each row's last
    token. Of a language model's head it multiplies only the tokens that the score needs.
    """

    options: ClassVar[Sequence[Option]] = OPTIONS
    supplied_inputs: Sequence[str] = (f"{PAST}*",)

    def __init__(self, card: ModelCard, checkpoint: Checkpoint, **settings: Any) -> None:
        super().__init__(card, checkpoint, **settings)
        config = read_config(checkpoint.folder)
        if not self.chosen.get("template"):
            raise ZooError(
                f"'{card.name}' is a language model, and no template says what to ask it (without the one it was trained with it ranks "
                "almost at random): set 'template' in [options] of its card"
            )
        self.check_length(config.position_limit)
        self.tokenizer = PromptTokenizer(
            checkpoint.folder,
            config,
            Template.parse(self.chosen["template"]),
            max_length=self.max_length,
            query_max_length=self.query_max_length,
            instruction=self.chosen.get("instruction", ""),
            instruction_form=self.chosen["instruction_form"],
        )
        self.head = self._read_head()
        if self.head["kind"] == "label" and config.labels != 1:
            raise ZooError(
                f"{checkpoint.folder}/config.json describes a classifier with {config.labels} labels; a reranker has one"
            )
        heads = config.num_attention_heads or 1
        size = config.head_dim or HEAD_SIZES.get(config.model_type or "", (config.hidden_size or heads) // heads)
        self._prefixes = SharedPrefixes(PastShape(config.num_key_value_heads or heads, size))
        self._common: Sequence[int] | None = None
        self._lock = Lock()

    @classmethod
    def offer(cls, folder: Path) -> CheckpointOffer:
        config = read_config(folder)
        if config.model_type not in ("gemma", "qwen2", "qwen3"):
            return CheckpointOffer(available=False)
        return CheckpointOffer(
            available=False,
            reason=f"'{config.kind}' is a language model, and what to ask it is not known",
            remedy="Write a card with architecture = \"decoder\" and its template in [options]; 'zoo models qwen3-reranker-0.6b' shows one",
        )

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        prompts = self.tokenizer.encode(pairs)
        rows = [each.encoding for each in prompts]
        if self.chosen["shared_prefix"] == "off":
            return Encodings(rows, self.tokenizer.padding)
        shared = self._shared(pairs, prompts)
        groups: dict[tuple[int, ...], int] = {}
        numbers = [
            groups.setdefault(tuple(row.features["input_ids"][:count]), len(groups))
            for row, count in zip(rows, shared, strict=True)
        ]
        return Encodings(rows, self.tokenizer.padding, groups=numbers, shared=shared)

    @hookimpl
    def infer(self, session: Session, inputs: Tensors, batch: BatchInfo) -> Future[Tensors]:
        if not any(name.startswith(PAST) for name in session.input_names):
            return session.submit(inputs)
        return self._prefixes.submit(session, inputs, batch)

    @hookimpl
    def postprocess(self, outputs: Tensors) -> Scores:
        return self.one_logit(outputs, "The model file must hold the folded head that the card's options decide")

    def _read_head(self) -> dict[str, str | int | None]:
        positive, negative = self.chosen.get("positive"), self.chosen.get("negative")
        if not positive:
            if negative:
                raise ZooError(
                    f"the option 'negative' of '{self.card.name}' needs 'positive', the token it is subtracted from"
                )
            return {"kind": "label"}
        subtracted = self.tokenizer.token_id(negative) if negative else None
        return {"kind": "tokens", "positive": self.tokenizer.token_id(positive), "negative": subtracted}

    def _shared(self, pairs: Sequence[Pair], prompts: Sequence[Prompt]) -> list[int]:
        """Leading tokens of each row that are computed once: up to the document for pairs of one query, else what all prompts have."""
        by_query: dict[tuple[str, str], list[int]] = {}
        for number, pair in enumerate(pairs):
            by_query.setdefault((pair.query, pair.instruction), []).append(number)
        shared = [0] * len(pairs)
        for rows in by_query.values():
            base = prompts[rows[0]].base
            with self._lock:
                seen = self._common is not None
                self._common = base[: common_length(base, self._common)] if self._common is not None else base
                common = self._common
            if len(rows) == 1 and not seen:
                continue  # no other prompt has been seen that it could share a prefix with
            prefix = base if len(rows) > 1 else common
            count = min(_shared_with(prefix, prompts[row]) for row in rows)
            if count >= LEAST:
                for row in rows:
                    shared[row] = count
        return shared


def _shared_with(prefix: Sequence[int], prompt: Prompt) -> int:
    """Tokens that a prompt begins with in common, at most all but its last."""
    ids = prompt.encoding.features["input_ids"]
    return min(common_length(list(ids), list(prefix)), len(ids) - 1)
