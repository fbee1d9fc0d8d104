"""Help in Chinese: every text has a translation, the language is chosen as promised, and results and errors stay English."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator

import click
import pytest

from command_line import commands
from conftest import Zoo
from zoo.cli import SUMMARIES, language, main
from zoo.cli.language import chinese, columns, paragraphs, table, to_the_front, wrapped

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def texts() -> Iterator[str]:
    """Every text of help, with the command or option that it belongs to: paragraphs, summaries, and what options say."""
    yield from SUMMARIES.values()
    for name, command in [("", main), *commands()]:
        context = click.Context(command, info_name=name)
        for kept, lines in paragraphs(inspect.cleandoc(command.help or "")):
            for line in lines:
                example = kept and "  " not in line.strip() and line.strip().startswith("zoo ")
                if not example and line.strip():
                    yield line
        for parameter in command.get_params(context):
            if isinstance(parameter, click.Option) and parameter.help:
                yield parameter.help


def test_every_text_of_help_is_in_chinese() -> None:
    """What is missing is printed as lines for help_zh.json."""
    missing = {" ".join(text.split()) for text in texts() if not CHINESE.search(chinese(text) or "")}
    assert not missing, "\n".join(f'  {json.dumps(text)}: "",' for text in sorted(missing))


def test_no_sentence_is_left_in_english() -> None:
    for text in texts():
        left = re.search(r"(?<![-\w=./'])[a-z]{2,}( [a-z]{2,}){3,}", chinese(text) or "")
        assert left is None or "pip install" in text, f"{left}: {text}"


def test_no_translation_is_left_over() -> None:
    """A text that was changed or went leaves none behind."""
    used = " ".join(" ".join(text.split()) for text in texts())
    assert [text for text in table() if text not in used] == []


def test_the_language_is_that_of_the_option_then_of_zoo_lang_then_of_the_locale(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_chinese(*words: str) -> bool:
        done = zoo(*words, "--help")
        assert done.exit_code == 0
        return bool(CHINESE.search(done.stdout))

    for name in language.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not is_chinese("run")
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert is_chinese("run")
    monkeypatch.setenv("LC_ALL", "C")
    assert not is_chinese("run"), "LC_ALL overrides LANG"
    monkeypatch.setenv("ZOO_LANG", "zh")
    assert is_chinese("run")
    assert not is_chinese("--lang", "en", "run")
    monkeypatch.setenv("ZOO_LANG", "en")
    assert is_chinese("--lang", "zh", "run")
    monkeypatch.setenv("ZOO_LANG", "tlh")
    assert not is_chinese("run"), "help never fails for an environment variable"


@pytest.mark.parametrize(
    "words", ["--lang zh run --help", "run --lang=zh --help", "run --help --lang zh", "--help --lang zh"]
)
def test_lang_may_stand_anywhere(words: str, zoo: Zoo) -> None:
    done = zoo(*words.split())
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("用法: zoo ")
    assert "选项:" in done.stdout


def test_what_stands_behind_two_hyphens_is_left_there() -> None:
    assert to_the_front(["run", "--", "--lang", "zh"]) == ["run", "--", "--lang", "zh"]
    assert to_the_front(["run", "--lang"]) == ["run", "--lang"]


def test_another_language_is_an_error_of_usage(zoo: Zoo) -> None:
    done = zoo("--lang", "tlh", "run", "--help")
    assert done.exit_code == 2
    assert "'tlh'" in done.stderr


def test_a_group_lists_its_commands_in_chinese(zoo: Zoo) -> None:
    lines = zoo("--lang", "zh", "cache", "--help").stdout.splitlines()
    listed = lines[lines.index("命令:") + 1 :]
    assert len([line for line in listed if CHINESE.search(line)]) >= 3


@pytest.mark.parametrize(
    "words", ["run zoo-reranker-tiny --json -q", "run no-such-model", "run --no-such-option", "models --json"]
)
def test_results_and_errors_are_english_in_every_language(words: str, zoo: Zoo) -> None:
    english, asked = zoo(*words.split()), zoo("--lang", "zh", *words.split())
    assert (asked.exit_code, asked.stdout, asked.stderr) == (english.exit_code, english.stdout, english.stderr)


def test_the_table_is_read_only_when_help_is_printed(zoo: Zoo) -> None:
    table.cache_clear()
    assert zoo("--lang", "zh", "run", "zoo-reranker-tiny", "-q").exit_code == 0
    assert zoo("run", "--help").exit_code == 0
    assert table.cache_info().misses == 0
    assert zoo("--lang", "zh", "run", "--help").exit_code == 0
    assert table.cache_info().misses == 1


def test_lines_are_as_wide_as_the_terminal_allows(zoo: Zoo) -> None:
    """A Chinese character takes two columns. A command to copy is not broken, and neither is one long word."""
    for name, _ in commands():
        for line in zoo("--lang", "zh", *name.split(), "--help").stdout.splitlines():
            example = line.strip().startswith("zoo ")
            assert example or columns(line) <= 80 or max(map(columns, line.split())) > 30, line


def test_wrapping_keeps_words_and_punctuation_together() -> None:
    assert wrapped("模型文件, 导出", 10) == ["模型文件,", "导出"]
    assert wrapped("用 onnxsim 简化", 10) == ["用 onnxsim", "简化"]
    assert wrapped("", 10) == [""]


def test_help_says_what_english_help_says_of_defaults_and_ranges(zoo: Zoo) -> None:
    shown = zoo("--lang", "zh", "serve", "--help").stdout
    assert "[默认: 8000; 0<=x<=65535]" in " ".join(shown.split())
    assert "--port" in shown
