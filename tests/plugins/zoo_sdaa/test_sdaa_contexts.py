"""Versions of TecoInference of a kind that the fake runtime does not play."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zoo_sdaa.contexts import Asynchronous1
from zoo_sdaa.runtime_adapters import Generation2


class Part:
    """A context or an engine that keeps in ``released`` what was released."""

    def __init__(self, name: str, released: list[str]) -> None:
        self.name, self.released = name, released

    def release(self) -> None:
        self.released.append(self.name)


class CountingContext(Part):
    def __init__(self, released: list[str], reading: Callable[[], Any]) -> None:
        super().__init__("context", released)
        self.get_infer_time = reading

    def run_async(self, tensors: object) -> None: ...

    def start_timing(self) -> None: ...


class Engine(Part):
    def __init__(self, context: Part) -> None:
        super().__init__("engine", context.released)
        self._context = context

    def create_context(self) -> Part:
        return self._context


def lost() -> None:
    raise RuntimeError("sdaa: error 719, the device is lost")


def test_the_slowest_spa_is_the_device_time() -> None:
    context = Asynchronous1(Engine(CountingContext([], lambda: [720.0, 719.5])), 1)
    assert context.device_seconds() == pytest.approx(0.72)


@pytest.mark.parametrize(
    "reading",
    [lambda: None, lambda: [], lambda: 720.0, lambda: ["soon"], lost],
    ids=["nothing", "no spa", "one number", "no number", "an error"],
)
def test_a_counter_that_gives_no_times_is_told_once_and_ends_nothing(
    reading: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    released: list[str] = []
    context = Asynchronous1(Engine(CountingContext(released, reading)), 1)
    with caplog.at_level(logging.INFO, "zoo.sdaa"):
        assert context.device_seconds() is None
        assert context.device_seconds() is None
    context.release()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Times are taken from outside" in caplog.text
    assert released == ["context", "engine"]


def test_generation_2_keeps_engines_although_its_tvm_only_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tvm", ModuleType("tvm"))  # without tvm.runtime
    Generation2().save(b"what relay.build gave", tmp_path / "x.tecoengine")
    assert (tmp_path / "x.tecoengine").read_bytes() == b"what relay.build gave"
