"""Write the generated parts of the documentation: ``python docs/generate.py``; with ``--check`` only say what is stale.

``docs/cli.md`` is made from the commands themselves, and the parts of ``docs/plugins.md`` between markers from the
docstrings of the hook specs and of the model card.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from zoo.cli import main as zoo_command  # noqa: E402
from zoo.registry import card, hookspecs  # noqa: E402


def cli_page() -> str:
    """Every command with its help and options."""
    lines = ["# Commands", "", "Generated from the commands themselves by `python docs/generate.py`.", ""]
    introduction, _, examples = inspect.cleandoc(zoo_command.help or "").partition("\b\n")
    lines += [introduction.strip(), "", "```", examples, "```", ""]
    context = click.Context(zoo_command, info_name="zoo")
    lines += list(_options(zoo_command, context))
    for name in zoo_command.list_commands(context):
        command = zoo_command.get_command(context, name)
        assert command is not None
        lines += list(_command(f"zoo {name}", command, context))
    return "\n".join(lines).rstrip() + "\n"


def _command(title: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=title, parent=parent)
    arguments = [
        f"<{p.name}>" if p.required else f"[{p.name}]" for p in command.params if isinstance(p, click.Argument)
    ]
    yield from (f"## {title}", "", f"`{' '.join([title, *arguments, '[options]'])}`", "")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = paragraph.removeprefix("\b\n")  # click's mark of lines that are not wrapped
        yield from (("```", kept, "```", "") if kept != paragraph else (paragraph, ""))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            yield from _command(f"{title} {name}", sub, context)
        return
    yield from _options(command, context)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from ("| option | meaning |", "| --- | --- |")
    for parameter in command.get_params(context):  # with those that are made from the devices' declared options
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            yield f"| {_spelling(parameter)} | {_cell(parameter.help or '')}{_default(parameter)} |"
    yield ""


def _spelling(option: click.Option) -> str:
    value = ""
    if isinstance(option.type, click.Choice):
        value = " " + "\\|".join(str(choice) for choice in option.type.choices)
    elif not option.is_flag and not option.count:
        value = f" {_cell(option.metavar or option.type.name.partition(' ')[0].upper())}"
    return ", ".join(f"`{spelling}`" for spelling in [*option.opts, *option.secondary_opts]) + value


def _default(option: click.Option) -> str:
    return f" Default: {option.default}." if option.show_default and not option.is_flag else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def hooks() -> str:
    """The hook specs, by their docstrings."""
    lines = []
    for group in (hookspecs.CatalogueSpecs, hookspecs.StageSpecs):
        lines += [f"### {inspect.getdoc(group)}", ""]
        for name, function in vars(group).items():
            if inspect.isfunction(function):
                signature = (
                    str(inspect.signature(function)).replace("(self, ", "(").replace("(self)", "()").replace("'", "")
                )
                lines += [f"#### `{name}{signature}`", "", inspect.getdoc(function) or "", ""]
    return "\n".join(lines).replace("``", "`")


def card_keys() -> str:
    """The keys of a model card, with the docstring that follows each in the source."""
    tree = ast.parse(inspect.getsource(card))
    lines = ["| key | type | meaning |", "| --- | --- | --- |"]
    for name, prefix in (("CardFields", ""), ("Reference", "reference."), ("GoldenScore", "golden.")):
        [found] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
        for node, following in zip(found.body, [*found.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = (
                    following.value.value
                    if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    else ""
                )
                kind = ast.unparse(node.annotation).replace(" | None", ", optional")
                lines.append(f"| `{prefix}{node.target.id}` | {kind} | {_cell(str(text)).replace('``', '`')} |")
    return "\n".join(lines) + "\n"


def contracts() -> str:
    """What each contract asks, by the docstrings of its tests. The source is read, not imported: it needs pytest."""
    lines = []
    for name in ("device", "architecture", "metric", "step", "command"):
        tree = ast.parse((DOCS.parent / "zoo" / "testing" / f"{name}.py").read_text(encoding="utf-8"))
        [found] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name.endswith("Contract")]
        lines += [f"### `{found.name}`", "", "| test | promise |", "| --- | --- |"]
        for node in found.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                promise = _cell(ast.get_docstring(node) or "").replace("``", "`")
                lines.append(f"| {node.name.removeprefix('test_').replace('_', ' ')} | {promise} |")
        lines.append("")
    return "\n".join(lines)


def filled(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """``text`` with what stands between ``<!-- name -->`` and ``<!-- end name -->`` replaced."""
    for name, make in parts.items():
        head, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- end {name} -->")
        assert start, f"no opening marker for {name}"
        assert end, f"no closing marker for {name}"
        text = head + start + make().rstrip() + "\n" + end + tail
    return text


def pages() -> dict[Path, str]:
    """What the generated files should hold."""
    plugins = DOCS / "plugins.md"
    parts = {"hooks": hooks, "card keys": card_keys}
    testing = DOCS / "testing-plugins.md"
    return {
        DOCS / "cli.md": cli_page(),
        plugins: filled(plugins.read_text(encoding="utf-8"), parts),
        testing: filled(testing.read_text(encoding="utf-8"), {"contracts": contracts}),
    }


def main() -> int:
    """Write or check; the exit code is 1 where a page is stale."""
    stale = {
        path: text for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.relative_to(DOCS.parent)} is stale: run python docs/generate.py\n")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
