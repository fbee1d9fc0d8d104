"""Environment variables are set for a block and put back."""

from __future__ import annotations

import os

import pytest

from zoo.api import environment


def test_variables_are_set_for_the_block_and_put_back_however_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_TEST_THERE", "before")
    monkeypatch.delenv("ZOO_TEST_ABSENT", raising=False)

    def fails() -> None:
        with environment({"ZOO_TEST_THERE": "inside", "ZOO_TEST_ABSENT": "inside"}):
            assert os.environ["ZOO_TEST_THERE"] == os.environ["ZOO_TEST_ABSENT"] == "inside"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert os.environ["ZOO_TEST_THERE"] == "before"
    assert "ZOO_TEST_ABSENT" not in os.environ
