"""The documentation says what the program does: generated parts are fresh, nothing is left out, examples run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import click
import pytest

from command_line import commands
from conftest import ROOT, Zoo
from zoo.registry import hookspecs, markers

DOCS = ROOT / "docs"


def test_generated_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name, command in commands():
        assert f"## zoo {name}" in page
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{parameter.opts[0]}`" in page, f"{name} {parameter.opts[0]}"


def test_every_hook_is_documented_by_its_docstring() -> None:
    page = (DOCS / "plugins.md").read_text(encoding="utf-8")
    for group in (hookspecs.CatalogueSpecs, hookspecs.StageSpecs):
        for name, function in vars(group).items():
            if callable(function):
                assert function.__doc__, name
                assert f"#### `{name}(" in page
    assert set(markers.STAGES) <= set(vars(hookspecs.StageSpecs))


def test_every_hook_is_used_by_a_test() -> None:
    """By an implementation in the tests' code: a name in a comment or in a text is none."""
    implemented = {
        node.name
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and any("hookimpl" in ast.unparse(mark) for mark in node.decorator_list)
    }
    specified = {*vars(hookspecs.CatalogueSpecs), *vars(hookspecs.StageSpecs)}
    assert {name for name in specified if not name.startswith("_")} <= implemented


@pytest.mark.parametrize("page", sorted([*DOCS.rglob("*.md"), ROOT / "README.md"]), ids=lambda path: path.name)
def test_links_lead_somewhere(page: object) -> None:
    assert isinstance(page, type(DOCS))
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_output_shown_in_the_readme_is_what_the_command_prints(zoo: Zoo) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\[\[.*\]\]-相似度:-?\d.*$", readme, re.MULTILINE)
    printed = zoo("run", "zoo-reranker-tiny", "--mode", "single").stdout.splitlines()
    assert [line.split("-相似度:")[0] for line in shown] == [line.split("-相似度:")[0] for line in printed]
    for line, actual in zip(shown, printed, strict=True):
        assert float(line.split("-相似度:")[1]) == pytest.approx(float(actual.split("-相似度:")[1]), abs=1e-3)


@pytest.mark.parametrize("number", range(3))
def test_the_examples_of_the_python_page_run(number: int) -> None:
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 3
    done = subprocess.run([sys.executable, "-c", examples[number]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
