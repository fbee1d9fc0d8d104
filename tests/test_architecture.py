"""Rules about the source itself: who imports whom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

from conftest import ROOT
from zoo.cli import main
from zoo.cli.settings_names import FLAGS
from zoo.registry.catalogue import Catalogue

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


def _is_docstring(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    return isinstance(parents.get(node), ast.Expr)


def texts(path: Path) -> list[str]:
    """The strings of a file that are not docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _is_docstring(node, parents)
    ]


def flags() -> set[str]:
    """What the commands take."""
    context = click.Context(main)
    commands = [main.get_command(context, name) for name in main.list_commands(context)]
    return {
        flag
        for command in commands
        if command is not None
        for parameter in command.get_params(click.Context(command, obj=Catalogue.installed()))
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    }


def test_messages_outside_the_command_line_name_settings_and_no_flags() -> None:
    of_zoo = re.compile("|".join(rf"(?<![\w-]){flag}(?![\w-])" for flag in sorted(flags())))
    wrong = {
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in (*SOURCES, *(ROOT / "plugins").rglob("*.py"))
        if not path.is_relative_to(ROOT / "zoo" / "cli")
        and not path.is_relative_to(ROOT / "plugins" / "zoo_sdaa")  # Tecorigin's own spellings are declared there
        and path != ROOT / "zoo" / "testing" / "command.py"  # it types flags, as a user does
        for text in texts(path)
        for found in of_zoo.finditer(text)
    }
    assert not wrong


def test_every_setting_that_has_a_flag_has_one_that_a_command_takes() -> None:
    assert set(FLAGS.values()) <= flags()


def test_there_are_plugins_to_check() -> None:
    assert {"zoo_cpu", "zoo_cross_encoder"} <= set(PLUGINS)
