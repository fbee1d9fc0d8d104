"""Reranking labelled data sets: reading them, scoring, the journal, metrics and reports::

    from zoo.evaluation import evaluate
    from zoo.settings import RunSettings

    found = evaluate(RunSettings(model="zoo-reranker-tiny", batch_size=32))
    print(found.ndcg_at_10, found.output)

``zoo run --mode valid`` does the same, and shows how far it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.evaluation.datasets import DataRequest as DataRequest
    from zoo.evaluation.harness import Evaluation as Evaluation
    from zoo.evaluation.harness import EvaluationRequest as EvaluationRequest
    from zoo.evaluation.harness import evaluate as evaluate

__all__ = ["DataRequest", "Evaluation", "EvaluationRequest", "evaluate"]


def __getattr__(name: str) -> Any:
    if name == "DataRequest":
        from zoo.evaluation.datasets import DataRequest

        return DataRequest
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("zoo.evaluation.harness"), name)
    raise AttributeError(f"module 'zoo.evaluation' has no attribute '{name}'")
