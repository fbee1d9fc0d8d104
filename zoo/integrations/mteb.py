"""mteb: a cross-encoder for reranking tasks. ``pip install 'zoo-runner[mteb]'``

import mteb
from zoo.integrations.mteb import ZooCrossEncoder

mteb.evaluate(ZooCrossEncoder("bge-reranker-v2-m3"), mteb.get_task("AskUbuntuDupQuestions"))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from mteb.models.model_meta import ModelMeta
from numpy.typing import NDArray

from zoo.integrations.shared import opened
from zoo.reranker import Reranker
from zoo.types import Pair


class ZooCrossEncoder:
    """mteb's ``CrossEncoderProtocol``: logits for the pairs of two loaders. ``settings`` are those of ``Reranker.open``.

    mteb hands over all pairs of a task in one call; they are read, sorted by length and scored a few thousand at a time.
    ``instructions`` gives a task's instructions to the model apart from the query, for models that read one; otherwise they stand in
    the query's text, as mteb writes them.
    """

    def __init__(
        self,
        model_name: Reranker | str,
        revision: str | None = None,
        device: str | None = None,
        *,
        instructions: bool = False,
        **settings: Any,
    ) -> None:
        self.instructions = instructions
        if device is not None:
            settings["device"] = device
        self.reranker = opened(model_name, settings)
        name = self.reranker.card.name
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": name if name.count("/") == 1 else f"zoo/{name.replace('/', '-')}",
                "revision": revision or self.reranker.checkpoint.revision or "local",
                "model_type": ["cross-encoder"],
            }
        )

    def predict(
        self,
        inputs1: Iterable[Mapping[str, Any]],
        inputs2: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """float32 logits of shape (n,), one for each query in ``inputs1`` with the document at the same place in ``inputs2``.

        Raises ZooError.
        """
        pairs = zip(self._queries(inputs1), _texts(inputs2), strict=True)
        return self.reranker.score(Pair(query, passage, instruction) for (query, instruction), passage in pairs)

    def _queries(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        """Queries with their instructions, which are empty unless they are wanted apart."""
        for batch in batches:
            if self.instructions and "instruction" in batch and "query" in batch:
                yield from zip(batch["query"], (each or "" for each in batch["instruction"]), strict=True)
            else:
                yield from ((text, "") for text in batch["text"])


def _texts(batches: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for batch in batches:
        yield from batch["text"]
