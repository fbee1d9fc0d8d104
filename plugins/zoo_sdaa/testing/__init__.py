"""A fake TecoInference that really computes: the modules ``tvm`` and ``tecoinference``, and ``teco-smi``.

It executes the ONNX graph by ONNX Runtime, rounds to float16 where it is asked for half precision, reuses its output memory, and raises
``ContractError`` wherever it is used in a way that the published contract does not allow. ``fake_sdaa`` puts it in place for a test and
for every process the test starts::

    with fake_sdaa(tmp_path, Machine(cards=4)) as fake:
        ...  # zoo run MODEL --target sdaa:all
    fake.events("build")
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from zoo_sdaa.testing import faults
from zoo_sdaa.testing.machine import ENGINES, OLDER, VISIBLE, ContractError, Machine, teco_smi

__all__ = ["ContractError", "Fake", "Machine", "fake_sdaa"]

HERE = Path(__file__).resolve().parent


class Fake:
    """The fake while it is in place, and what was done with it."""

    def __init__(self, machine: Machine, log: Path) -> None:
        self.machine, self.log = machine, log

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """What happened, in every process: engine, context, call, build, released, violation."""
        if not self.log.exists():
            return []
        found = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [event for event in found if kind in ("", event["event"])]

    def leaks(self) -> list[str]:
        """Engines and contexts that were made and not released."""
        counts: dict[tuple[int, str, int], int] = {}
        for event in self.events():
            kind, _, released = event["event"].partition(" ")
            if kind in ("engine", "context"):
                key = (event["pid"], kind, event["id"])
                counts[key] = counts.get(key, 0) + (-1 if released else 1)
        return [f"{kind} of process {pid}" for (pid, kind, _), count in counts.items() if count > 0]

    def check(self, *, leaks: bool) -> None:
        """Raise AssertionError where the contract was broken or, unless ``leaks`` are expected, something was not released."""
        broken = [event["problem"] for event in self.events("violation")]
        assert not broken, f"the contract was broken: {'; '.join(broken)}"
        assert leaks or not self.leaks(), f"not released: {', '.join(self.leaks())}"


@contextmanager
def fake_sdaa(
    folder: Path, machine: Machine | None = None, *, leaks: bool = False, broken: bool = False
) -> Iterator[Fake]:
    """Put the fake in place, here and in child processes; ``folder`` takes its ``teco-smi`` and its log.

    At the end a broken contract or an engine that was not released is an AssertionError, unless the test says that it provokes it.
    """
    here = machine or Machine()
    folder.mkdir(parents=True, exist_ok=True)
    fake = Fake(here, folder / "events.jsonl")
    sites = [
        *([str(HERE / "site")] if here.tvm else []),
        *([str(HERE / "site2")] if here.generation == 2 else []),
    ]
    environment = {
        **here.environment(fake.log),
        "PATH": os.pathsep.join([str(_teco_smi(folder, here, fake.log)), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [*sites, os.environ.get("PYTHONPATH", "")])),
    }
    with mock.patch.dict(os.environ, environment), mock.patch.object(sys, "path", [*sites, *sys.path]):
        for name in (ENGINES, VISIBLE, OLDER):
            os.environ.pop(name, None)
        faults.reset()
        _forget_modules()
        try:
            yield fake
        finally:
            _forget_modules()
    if not broken:
        fake.check(leaks=leaks)


def _teco_smi(folder: Path, machine: Machine, log: Path) -> Path:
    """A folder with a program ``teco-smi`` that prints the machine's cards."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    with mock.patch.dict(os.environ, machine.environment(log)):
        (folder / "teco-smi.txt").write_text(teco_smi(), encoding="utf-8")
    program = programs / "teco-smi"
    program.write_text(f"#!/bin/sh\nexec cat '{folder / 'teco-smi.txt'}'\n", encoding="utf-8")
    program.chmod(0o755)
    return programs


def _forget_modules() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tvm", "tecoinference")]:
        del sys.modules[name]
