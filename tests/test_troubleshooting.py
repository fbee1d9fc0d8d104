"""The page that explains errors quotes those that exist, in both languages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Zoo
from zoo.cli.settings_names import as_flags

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### `([^\n]*)`\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
"""What is explained, and the explanation."""
ANYTHING = "\0"


def quoted(entry: str) -> re.Pattern[str]:
    """A pattern for an entry, whose ``...`` stand for names and numbers."""
    return re.compile(".*".join(re.escape(part) for part in entry.split("...")), re.DOTALL)


def texts(node: ast.AST) -> str:
    """The text of a string or f-string; what is put into it is ANYTHING."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(texts(value) if isinstance(value, ast.Constant) else ANYTHING for value in node.values)  # type: ignore[attr-defined]


def messages() -> Iterator[str]:
    """Every text in the code, as the command line shows it."""
    for folder in ("zoo", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                    yield as_flags(texts(node))


@pytest.fixture(scope="module")
def source() -> list[str]:
    return list(messages())


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_message_that_is_explained_is_one_of_the_codes(entry: str, source: list[str]) -> None:
    assert any(quoted(entry).search(text) for text in source)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_message_is_explained_in_both_languages(entry: str) -> None:
    paragraphs = [part for part in re.split(r"\n\s*\n", ENTRIES[entry].strip()) if part]
    chinese = [bool(re.search(r"[\u4e00-\u9fff]", part)) for part in paragraphs]
    assert chinese == [False, True]


@pytest.mark.parametrize(
    "words",
    [
        ["rnu"],
        ["run", "zoo-reranker-tniy"],
        ["run", "zoo-reranker-tiny", "--split", "test"],
        ["run", "zoo-reranker-tiny", "--half", "--precision", "fp32"],
        ["run", "bge-reranker-v2-m3", "--offline"],
        ["run", "zoo-reranker-tiny", "--config-path", "."],
        ["run", "zoo-reranker-tiny", "--data-path", ".", "--mode", "single"],
        ["run", "zoo-reranker-tiny", "--data-path", ".", "--mode", "valid"],
        ["run", "zoo-reranker-tiny", "--data-path", "gbk.txt"],
        ["run", "zoo-reranker-tiny", "--shape", "2"],
        ["run", "zoo-reranker-tiny", "--shape", "100000"],
        ["run", "zoo-reranker-tiny", "--precision", "bf16", "--target", "cpu"],
        ["run", "zoo-reranker-tiny", "--ckpt", "gbk.txt"],
        ["run", "zoo-reranker-tiny", "--workers", "10000", "--target", "cpu"],
        ["run", "zoo-reranker-tiny", "--target", "sdaa"],
    ],
    ids=" ".join,
)
def test_the_errors_that_are_met_first_are_explained(words: list[str], zoo: Zoo) -> None:
    Path("gbk.txt").write_bytes("大熊猫\t竹子\n".encode("gbk"))
    done = zoo(*words)
    assert done.exit_code in (1, 2), done.stderr
    assert any(quoted(entry).search(done.stderr) for entry in ENTRIES), done.stderr
