"""Help in the user's language. What commands print as results and errors is English in every language, so that it can be searched.

Help is written in English where options are declared. ``help_zh.json`` maps it to Chinese, text by text, and is read only when Chinese help
is printed. A text without a translation, such as that of another package's command, is shown as it is.
"""

from __future__ import annotations

import functools
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import click

LANGUAGES = ("en", "zh")
LANGUAGE = "zoo.language"
"""Where the root context keeps what ``--lang`` gave."""
VARIABLES = ("ZOO_LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
"""Where the language is looked for without ``--lang``: zoo's own variable, then those of gettext, in its order."""
PIECE = re.compile(r"\s+|[\u2e80-\uffef][,.;:!?)\]、。，；：！？）]*|[^\s\u2e80-\uffef]+")
"""What is kept on one line: a word, or a Chinese character with the punctuation behind it."""
VERBATIM = "\b"
"""click's mark of a paragraph whose lines are kept."""


def language_of(context: click.Context) -> str:
    """``en`` or ``zh``: by ``--lang``, else by the environment."""
    given: str | None = context.find_root().meta.get(LANGUAGE)
    found = given or next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    return "zh" if found.casefold().startswith("zh") else "en"


def to_the_front(args: Sequence[str]) -> list[str]:
    """``args`` with ``--lang`` first, so that it may stand behind a command and behind ``--help``."""
    args = list(args)
    end = args.index("--") if "--" in args else len(args)
    for place, arg in enumerate(args[:end]):
        count = 2 if arg == "--lang" and place + 1 < end else 1 if arg.startswith("--lang=") else 0
        if count:
            return [*args[place : place + count], *args[:place], *args[place + count :]]
    return args


def language_option(function: Any) -> Any:
    """``--lang`` for the root command."""

    def keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        context.find_root().meta[LANGUAGE] = value

    return click.option(
        "--lang", type=click.Choice(LANGUAGES), is_eager=True, expose_value=False, callback=keep,
        help="Language of help texts, anywhere on the line. Default: ZOO_LANG, else the locale.",
    )(function)  # fmt: skip


class HelpContext(click.Context):
    """Prints help in the user's language, and usage beside an error in English."""

    helping = False

    def get_help(self) -> str:
        self.helping = True
        try:
            return super().get_help()
        finally:
            self.helping = False

    def make_formatter(self) -> click.HelpFormatter:
        if self.helping and language_of(self) == "zh":
            return ChineseFormatter(width=self.terminal_width, max_width=self.max_content_width)
        return super().make_formatter()


def with_help(command: click.Command) -> click.Command:
    """``command``, whose help and whose subcommands' help is in the user's language."""
    command.context_class = HelpContext
    for each in getattr(command, "commands", {}).values():
        with_help(each)
    return command


@functools.cache
def table() -> Mapping[str, str]:
    """Chinese by English; blanks in a row are one."""
    text = (resources.files("zoo.cli") / "help_zh.json").read_text(encoding="utf-8")
    found: dict[str, str] = json.loads(text)
    return found


def chinese(text: str) -> str | None:
    """A text of help in Chinese, or None if there is no translation of it.

    Texts that are put together when commands are listed (``sdaa: ...``, a sentence and a list of options) are translated by their parts.
    """
    text = " ".join(text.split())
    if text in table():
        return table()[text]
    if f"{text}." in table():  # a summary, from which click takes the full stop
        return table()[f"{text}."].rstrip("。.")
    if text.endswith("..."):  # a summary that click has cut
        return next((zh for en, zh in table().items() if en.startswith(text[:-3])), None)
    owner, colon, rest = text.partition(": ")
    if colon and " " not in owner and (said := chinese(rest)):
        return f"{owner}: {said}"
    for stop in reversed([found.end() for found in re.finditer(r"[.\]](?= )", text)]):
        if text[:stop] in table():
            rest = text[stop + 1 :]
            return f"{table()[text[:stop]]} {chinese(rest) or rest}"
    return None


def paragraphs(text: str) -> Iterator[tuple[bool, list[str]]]:
    """The paragraphs of a command's help: whether its lines are kept, and the lines."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.splitlines()
        kept = bool(lines) and lines[0].strip() == VERBATIM
        yield kept, lines[1:] if kept else [" ".join(paragraph.split())]


def columns(text: str) -> int:
    """Columns that a terminal takes for ``text``: two for a Chinese character."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` columns."""
    lines = [""]
    for piece in PIECE.findall(text):
        if columns(lines[-1] + piece.rstrip()) > width and lines[-1]:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
        if lines[-1] or piece.strip():
            lines[-1] += " " if not piece.strip() else piece
    return [line.rstrip() for line in lines]


class ChineseFormatter(click.HelpFormatter):
    """click's form of help, with Chinese texts, wrapped by the columns that they take."""

    HEADINGS: Mapping[str, str] = {"Options": "选项", "Commands": "命令"}
    WORDS: Mapping[str, str] = {"[default: ": "[默认: ", "required": "必填"}

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, prefix or "用法: ")

    def write_heading(self, heading: str) -> None:
        super().write_heading(self.HEADINGS.get(heading, heading))

    def write_text(self, text: str) -> None:
        indent = " " * self.current_indent
        for number, (kept, lines) in enumerate(paragraphs(text)):
            if number:
                self.write("\n")
            for line in lines:
                said = chinese(line)
                made = [said or line] if kept else wrapped(said or line, self.width - self.current_indent)
                self.write("".join(f"{indent}{each}\n" for each in made))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        rows = list(rows)
        first = min(max((columns(name) for name, _ in rows), default=0), col_max) + col_spacing
        indent = " " * self.current_indent
        for name, text in rows:
            lines = wrapped(self._said(text), max(self.width - first - 2, 10))
            start = f"{indent}{name}"
            if columns(name) > first - col_spacing:
                self.write(f"{start}\n")
                start = indent + " " * first
            else:
                start += " " * (first - columns(name))
            self.write(f"{start}{lines[0]}".rstrip() + "\n")
            self.write("".join(f"{indent}{' ' * first}{line}\n" for line in lines[1:]))

    def _said(self, text: str) -> str:
        """The help of an option, with what click puts behind it: default, range, whether it has to be given."""
        head, gap, extra = text.rpartition("  [")
        if not gap or " ".join(text.split()) in table():
            return chinese(text) or text
        extra = f"[{extra}"
        for english, said in self.WORDS.items():
            extra = extra.replace(english, said)
        return f"{chinese(head) or head} {extra}"
