"""``zoo run --mode single`` as a user sees it."""

from __future__ import annotations

import ast

from conftest import PANDA, Zoo


def test_the_panda_demo_is_printed_in_the_vendors_form(zoo: Zoo) -> None:
    result = zoo("run", "zoo-reranker-tiny", "--mode", "single")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    for line, pair in zip(lines, PANDA, strict=True):
        text, score = line.split("-相似度:")
        assert text == repr([list(pair)])
        assert score == repr(ast.literal_eval(score))
        assert isinstance(ast.literal_eval(score), float)
