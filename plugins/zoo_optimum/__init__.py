"""Export through optimum, and the graph work after it: the bundled implementation of the ``export`` hook.

Every step runs in a process of its own (``zoo_optimum.child``), so that what torch and onnx hold is given back before a session is
opened, and a step that dies takes nobody with it. This package itself imports nothing heavy.
"""

from __future__ import annotations

from zoo import hookimpl
from zoo.types import Artifact, ExportRequest
from zoo_optimum.needs import check
from zoo_optimum.stage import run_recipe


@hookimpl(trylast=True)
def export(request: ExportRequest) -> Artifact:
    check(request.recipe)
    return run_recipe(request)


@hookimpl(trylast=True)
def export_check(recipe: tuple[str, ...]) -> bool:
    check(recipe)
    return True
