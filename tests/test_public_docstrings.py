"""Every public name says what it is: what it gives, in which shape and unit, and what it raises.

The source is read, not imported: adapters need the frameworks that they are for.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zoo
import zoo.api
import zoo.evaluation
from conftest import ROOT

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
MODULES = (
    "zoo.bench", "zoo.evaluation", "zoo.multi", "zoo.ray", "zoo.testing.contract", "zoo.testing.toy", "zoo.errors",
    *(f"zoo.integrations.{path.stem}" for path in sorted((ROOT / "zoo" / "integrations").glob("[a-z]*.py"))),
    *(f"zoo.serve.{name}" for name in ("app", "models", "server", "settings")),
)  # fmt: skip
"""Modules whose names programs may import, beside ``zoo`` and ``zoo.api``."""


@dataclass(frozen=True)
class Name:
    """A public name: a class, a function, or a public member of a class."""

    place: str
    node: Documented

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of what a module hands on: ``from x import y as y``, and what is meant for type checkers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("zoo"):
            yield from ((node.module, alias.name) for alias in node.names if alias.asname == alias.name)


def found(module: str, only: str | None = None) -> Iterator[Name]:
    """The public classes and functions of a module and their public members; ``only`` one of them, wherever it is defined."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, Documented) and not node.name.startswith("_") and only in (None, node.name):
            yield from members(f"{module}.{node.name}", node)
    for other, name in imported(tree):
        if only in (None, name) and path_of(other).is_file():
            yield from found(other, name)


def members(place: str, node: Documented) -> Iterator[Name]:
    yield Name(place, node)
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.name.startswith("_"):
                yield Name(f"{place}.{member.name}", member)


def public() -> dict[str, Name]:
    names = [*found("zoo"), *found("zoo.api"), *(name for module in MODULES for name in found(module))]
    return {name.place: name for name in names}


NAMES = public()
ALIASES = {"ArchitectureFactory", "Head", "Precision", "Qrels", "Run", "Scores", "Tensors", "hookimpl"}
"""Types under a short name, and pluggy's marker: a text stands behind them where they are defined, or their specification says it."""


def test_the_walk_finds_what_programs_import() -> None:
    last = {place.rpartition(".")[2] for place in NAMES}
    assert {"Reranker", "rank_many", "Architecture", "DeviceContract", "evaluate", "ZooReranker", "score_files"} <= last
    assert {
        name for name in zoo.api.__all__ if inspect.isclass(getattr(zoo.api, name)) or callable(getattr(zoo.api, name))
    } - ALIASES <= last
    assert len(NAMES) > 200


def test_every_name_has_a_docstring() -> None:
    assert not [place for place, name in NAMES.items() if not name.doc]


def raised(node: Documented) -> set[str]:
    """Exceptions that a function raises itself, in its own body."""
    names = set()
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        each = waiting.pop()
        if isinstance(each, Documented):
            continue
        if isinstance(each, ast.Raise) and each.exc is not None:
            call = each.exc.func if isinstance(each.exc, ast.Call) else each.exc
            names.add(ast.unparse(call).rpartition(".")[2])
        waiting.extend(ast.iter_child_nodes(each))
    return {name for name in names if re.fullmatch(r"\w*(Error|Exception)", name)}


def test_what_a_function_raises_is_said() -> None:
    """A test of a contract raises AssertionError, and says what must hold."""
    silent = {
        place: raised(name.node) - {"AssertionError"}
        for place, name in NAMES.items()
        if not isinstance(name.node, ast.ClassDef) and "Raises " not in name.doc
    }
    assert not {place: errors for place, errors in silent.items() if errors}


def explained(owner: Name, field: str) -> bool:
    """By a text behind it, or by its name in the docstring of its class."""
    behind = any(
        isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.target.id == field
        and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        for each, following in itertools.pairwise(owner.node.body)
    )  # fmt: skip
    return behind or bool(re.search(rf"\b{field.rstrip('s')}", owner.doc))


def test_every_field_is_explained() -> None:
    fields = [
        (name, field.target.id)
        for name in NAMES.values()
        if isinstance(name.node, ast.ClassDef)
        for field in name.node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id[0] != "_"
    ]
    assert len(fields) > 150
    assert not [f"{owner.place}.{field}" for owner, field in fields if not explained(owner, field)]
