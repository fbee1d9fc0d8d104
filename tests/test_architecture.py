"""Rules about the source itself: who imports whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from conftest import ROOT

SOURCES = sorted((ROOT / "zoo").rglob("*.py"))
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if path.name.startswith("zoo_") and path.is_dir())


def imports(path: Path) -> set[str]:
    """Modules a file imports anywhere, those for type checkers included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_runner_imports_no_plugin(path: Path) -> None:
    assert not {module for module in imports(path) if module.partition(".")[0] in PLUGINS}


def test_plugins_do_not_import_the_command_line() -> None:
    for path in (ROOT / "plugins").rglob("*.py"):
        assert not {module for module in imports(path) if module.startswith("zoo.cli")}, path


def test_there_are_plugins_to_check() -> None:
    assert {"zoo_cpu", "zoo_cross_encoder"} <= set(PLUGINS)
