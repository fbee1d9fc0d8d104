"""``zoo new``: a package to begin with, whose tests pass as they are written."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import click

from zoo.cli.boundary import out
from zoo.cli.common import verbosity_options
from zoo.errors import ZooError
from zoo.files import reason

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
FILES: Mapping[str, Mapping[str, str]] = {
    "common": {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "tests.yml": ".github/workflows/tests.yml",
    },
    "reranker": {
        "__init__.py": "{package}/__init__.py",
        "model.py": "{package}/model.py",
        "card.toml": "{package}/cards/{name}.toml",
        "test.py": "tests/test_{package}.py",
    },
    "device": {
        "__init__.py": "{package}/__init__.py",
        "device.py": "{package}/device.py",
        "test.py": "tests/test_{package}.py",
    },
    "metric": {"__init__.py": "{package}/__init__.py", "test.py": "tests/test_{package}.py"},
    "step": {
        "__init__.py": "{package}/__init__.py",
        "steps.py": "{package}/steps.py",
        "test.py": "tests/test_{package}.py",
    },
    "command": {
        "__init__.py": "{package}/__init__.py",
        "command.py": "{package}/command.py",
        "test.py": "tests/test_{package}.py",
    },
}
"""The templates of each kind, and where they go in the package."""
SUMMARIES = {
    "reranker": ("A reranker for zoo.", "zoo run {name} --mode single"),
    "device": ("A device for zoo.", "zoo run zoo-reranker-tiny --target {name}"),
    "metric": ("A metric for zoo.", "zoo run zoo-reranker-tiny --mode valid"),
    "step": ("An export step for zoo.", "zoo plugins"),
    "command": ("A command for zoo.", "zoo {name} 'two words'"),
}
"""One line for the package, and a command that tries it."""


@click.command("new")
@click.argument("kind", type=click.Choice(list(SUMMARIES)))
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder that gets the package's folder. Default: this one.",
)
@verbosity_options
def command(kind: str, name: str, into: Path) -> None:
    """Write a plugin package to begin with: code, tests against zoo's contract, and a CI file.

    NAME is the package's, and that of the reranker, device, metric, step or command in it: small letters, digits and '-'. The
    tests pass as generated; docs/plugins.md says what to change.
    """
    folder = into / name
    files = {folder / path: text for path, text in package(kind, name).items()}
    if folder.exists():
        raise ZooError(f"{folder} exists already; choose another name, or another folder with --into")
    for target, text in files.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ZooError(f"cannot write {target}: {reason(error)}") from error
    out("\n".join(map(str, files)))


def package(kind: str, name: str) -> dict[str, str]:
    """The files of a new package, by their place in it. Raises ZooError for a name that no package can have."""
    from zoo.api import API_VERSION

    module = name.replace("-", "_")
    if not NAME.fullmatch(name):
        raise ZooError(f"'{name}' is not a valid name: use small letters, digits and '-', beginning with a letter")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in ("zoo", "tests"):
        raise ZooError(f"a package called '{name}' would hide Python's own or zoo's; choose another name")
    summary, attempt = SUMMARIES[kind]
    values = {
        "@NAME@": name, "@PACKAGE@": module, "@CLASS@": "".join(part.capitalize() for part in name.split("-")),
        "@SUMMARY@": summary, "@TRY@": attempt.format(name=name), "@API@": str(API_VERSION),
    }  # fmt: skip
    templates = resources.files("zoo.cli") / "templates"
    made = {f"{module}/py.typed": ""}
    for group in ("common", kind):
        for template, place in FILES[group].items():
            text = (templates / group / f"{template}.txt").read_text(encoding="utf-8")
            for mark, value in values.items():
                text = text.replace(mark, value)
            made[place.format(package=module, name=name)] = text
    return dict(sorted(made.items(), key=lambda item: item[0] != "pyproject.toml"))
