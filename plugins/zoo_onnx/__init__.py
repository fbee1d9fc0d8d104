"""Steps that work on ONNX graphs, and the implementation of the ``export`` hook that runs recipes of them.

Every step runs in a process of its own (``zoo_onnx.child``), so that what torch and onnx hold is given back before a session is
opened, and a step that dies takes nobody with it. This package itself imports nothing heavy.
"""

from __future__ import annotations

from zoo import hookimpl
from zoo.types import Artifact, ExportRequest
from zoo_onnx.requirements import check
from zoo_onnx.run_steps import run_recipe


@hookimpl(trylast=True)
def export(request: ExportRequest) -> Artifact:
    check(request.recipe)
    return run_recipe(request)


@hookimpl(trylast=True)
def export_check(recipe: tuple[str, ...]) -> bool:
    check(recipe)
    return True
