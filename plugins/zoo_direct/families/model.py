"""What a family gives: a model read from its configuration, and the graph it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from zoo.api import ZooError
from zoo_direct.config import Config, UnsupportedError
from zoo_direct.form import Form, Linear


@dataclass(frozen=True)
class Head:
    """Which outputs of the model make the score.

    Without tokens it is the checkpoint's classifier of one label. With them it is the logit of ``positive`` at the last token, less
    the one of ``negative`` if there is one: of a language model's head only these rows are read.
    """

    positive: int | None = None
    negative: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Head:
        """From ``{"kind": "label"}`` or ``{"kind": "tokens", "positive": id, "negative": id or None}``. Raises ZooError for others."""
        kind, positive, negative = given.get("kind"), given.get("positive"), given.get("negative")
        unknown = sorted(set(given) - {"kind", "positive", "negative"})
        if kind == "label" and positive is None and negative is None and not unknown:
            return cls()
        ids = [positive] if negative is None else [positive, negative]
        whole = all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids)
        if kind == "tokens" and whole and not unknown:
            return cls(positive, negative)
        raise ZooError(
            f"the head {dict(given)} is not known: its kind is 'label', or 'tokens' with the ids 'positive' and 'negative'"
        )

    @property
    def tokens(self) -> list[int]:
        """The rows of a language model's head that are read, the positive one first; none for a classifier."""
        return [token for token in (self.positive, self.negative) if token is not None]


class Model(ABC):
    """One checkpoint's architecture. A family is a subclass in a file of its own."""

    classifiers: ClassVar[Sequence[str]] = ()
    """transformers' classes with one label whose checkpoints these are."""
    generators: ClassVar[Sequence[str]] = ()
    """Language models; they take a head of tokens."""
    needless: ClassVar[Sequence[str]] = ()
    """Parts of names of tensors that a checkpoint may carry although its configuration leaves them unread."""

    @classmethod
    @abstractmethod
    def read(cls, config: Config, head: Head) -> Model:
        """The model that config.json describes. Raises UnsupportedError if it has anything that ``write`` does not know."""

    @abstractmethod
    def write(self, form: Form) -> None:
        """Add the model to the form's graph, from its inputs to ``logits``, (batch, 1)."""

    def write_with_prefix(self, form: Form) -> None:
        """The same, for rows that begin with the same tokens, which are computed once: see ``decoder.Decoder``."""
        raise UnsupportedError(
            "only a decoder has rows that share a prefix: in an encoder every token sees the ones behind it"
        )

    def give_logits(self, form: Form, x: str, classifier: Linear) -> None:
        """The graph's output, from (batch, width)."""
        form.graph.output("logits", form.dense(x, classifier), ["batch_size", 1])
