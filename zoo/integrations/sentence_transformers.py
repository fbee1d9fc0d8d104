"""The shape of sentence-transformers' ``CrossEncoder``: ``predict`` and ``rank``, without that package and without torch.

from zoo.integrations.sentence_transformers import CrossEncoder

CrossEncoder("bge-reranker-v2-m3").rank("what is panda?", ["hi", "a bear"], return_documents=True)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.integrations.shared import opened
from zoo.reranker import Reranker

Activation = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class CrossEncoder:
    """The calls of ``sentence_transformers.CrossEncoder`` that rerank, answered by a ``Reranker``.

    ``settings`` are those of ``Reranker.open``, ``device`` and ``max_length`` among them.

    ``activation_fn`` maps logits, a float32 array, to scores. None is the sigmoid or, if the checkpoint's config.json says so as
    sentence-transformers writes it, the logits as they are.
    """

    def __init__(
        self, model_name_or_path: Reranker | str, *, activation_fn: Activation | None = None, **settings: Any
    ) -> None:
        self.reranker = opened(model_name_or_path, settings)
        self.activation_fn = activation_fn or (_same if _names_identity(self.reranker) else _sigmoid)

    def predict(
        self,
        inputs: Sequence[Any],
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
    ) -> Any:
        """float32 scores of shape (n,) in the order of ``inputs``, pairs of texts; one number for a single pair. Raises ZooError.

        ``batch_size`` and ``show_progress_bar`` are accepted and do nothing: batches are those that the reranker was opened with.
        """
        single = len(inputs) == 2 and all(isinstance(text, str) for text in inputs)
        pairs = [tuple(inputs)] if single else [tuple(pair) for pair in inputs]
        scores = (activation_fn or self.activation_fn)(self.reranker.score(pairs))
        return scores[0] if single else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
    ) -> list[dict[str, Any]]:
        """``{"corpus_id", "score", "text"}`` of the best documents by falling logit; ``text`` only with ``return_documents``.

        Raises ZooError.
        """
        ranked = self.reranker.rank(query, documents, top_k) if documents else []
        logits = np.asarray([found.score for found in ranked], dtype=np.float32)
        scores = (activation_fn or self.activation_fn)(logits).tolist()
        return [
            {"corpus_id": found.index, "score": score, **({"text": found.passage} if return_documents else {})}
            for found, score in zip(ranked, scores, strict=True)
        ]

    def __enter__(self) -> CrossEncoder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.reranker.close()


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    small = np.exp(-np.abs(logits))
    scores: NDArray[np.float32] = np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
    return scores


def _same(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits


def _names_identity(reranker: Reranker) -> bool:
    """Whether the checkpoint asks for raw logits: ``{"sentence_transformers": {"activation_fn": "torch.nn...Identity"}}``."""
    try:
        config = json.loads((reranker.checkpoint.folder / "config.json").read_text(encoding="utf-8"))
        activation = config["sentence_transformers"]["activation_fn"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return str(activation).rsplit(".", 1)[-1] == "Identity"
