"""PyTerrier: a transformer. ``pip install 'zoo-runner[pyterrier]'``

from zoo.integrations.pyterrier import ZooReranker

bm25 % 100 >> pt.text.get_text(index, "text") >> ZooReranker("bge-reranker-v2-m3")
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyterrier as pt

from zoo.integrations.shared import opened
from zoo.reranker import Reranker
from zoo.types import Pair


class ZooReranker(pt.Transformer):
    """Puts the logit of ``query`` and ``text_field`` into ``score``, and ranks anew. ``settings`` are those of ``Reranker.open``."""

    def __init__(self, reranker: Reranker | str, *, text_field: str = "text", **settings: Any) -> None:
        self.reranker = opened(reranker, settings)
        self.text_field = text_field

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """``inp`` with new ``score`` (a logit) and ``rank``. Raises ZooError; PyTerrier raises for columns that are missing."""
        pt.validate.result_frame(inp, extra_columns=["query", self.text_field])
        pairs = (Pair(query, text) for query, text in zip(inp["query"], inp[self.text_field], strict=True))
        scored = inp.drop(columns="rank", errors="ignore").assign(score=self.reranker.score(pairs).astype(float))
        return pt.model.add_ranks(scored)
