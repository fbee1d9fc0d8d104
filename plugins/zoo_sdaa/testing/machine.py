"""The machine that the fake runtime plays: its cards, its speed and its faults. It reaches every process through the environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

VARIABLE = "ZOO_FAKE_SDAA"
VISIBLE, ENGINES = "SDAA_VISIBLE_DEVICES", "MAX_ENGINE_NUMS"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a test wants the fake to be."""

    cards: int = 1
    spas: int = 4
    """SPAs of a card."""
    rows: Literal["spa", "card"] = "spa"
    """What one row of teco-smi, and so one index in SDAA_VISIBLE_DEVICES, stands for; both are published."""
    health: dict[str, str] = field(default_factory=dict)
    """Card number (as text) to what teco-smi says of it, where that is not OK."""
    generation: Literal[1, 2] = 1
    version: str = "0.9.0"
    device_seconds: float = 0.0
    """Device time of a call; 0: whatever computing it takes."""
    fail_at: int = 0
    """The call that fails, counted from 1 in each process; 0: none."""
    lose: int = -1
    """The card that is lost, at its call ``lose_at``; -1: none."""
    lose_at: int = 1
    lose_how: Literal["error", "exit", "hang"] = "error"
    without: tuple[str, ...] = ()
    """Attributes this version does not have: ``tvm.runtime.save_engine``, ``Context.start_timing``."""
    changed: tuple[str, ...] = ()
    """Functions whose signature is another one in this version."""

    def environment(self, log: Path) -> dict[str, str]:
        """What a process must find in its environment to be on this machine."""
        return {VARIABLE: json.dumps({**asdict(self), "log": str(log)})}


def machine() -> Machine:
    """The machine this process is on."""
    settings = _settings()
    settings.pop("log")
    return Machine(**{**settings, "without": tuple(settings["without"]), "changed": tuple(settings["changed"])})


def _settings() -> dict[str, Any]:
    text = os.environ.get(VARIABLE)
    if text is None:
        raise ImportError(
            "this is zoo's fake of TecoInference, and no fake machine is set up: use zoo_sdaa.testing.fake_sdaa"
        )
    settings: dict[str, Any] = json.loads(text)
    return settings


def record(event: str, **facts: Any) -> None:
    """Append to the log that the test reads at the end; one write, so that processes do not mix."""
    line = json.dumps({"pid": os.getpid(), "event": event, **facts}) + "\n"
    descriptor = os.open(_settings()["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class ContractError(RuntimeError):
    """The runtime was used in a way its contract does not allow. It is recorded too, so that swallowing it does not hide it."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        record("violation", problem=problem)


def demand(condition: bool, problem: str) -> None:
    if not condition:
        raise ContractError(problem)


def engines() -> int:
    """SPAs this process uses, and so copies of an engine."""
    wanted, there = int(os.environ.get(ENGINES, "4")), visible_spas()
    if wanted > there:
        raise RuntimeError(f"{ENGINES} is {wanted}, and this process sees {there} SPAs")
    return wanted


def visible_spas() -> int:
    per_row = 1 if machine().rows == "spa" else machine().spas
    return len(_visible_rows()) * per_row


def card() -> int:
    """The card this process runs on: that of the first device it sees."""
    here = machine()
    return _visible_rows()[0] // (here.spas if here.rows == "spa" else 1)


def _visible_rows() -> list[int]:
    here = machine()
    rows = here.cards * (here.spas if here.rows == "spa" else 1)
    chosen = os.environ.get(VISIBLE)
    return [int(index) for index in chosen.split(",")] if chosen else list(range(rows))


def teco_smi() -> str:
    """What ``teco-smi`` prints here, in the layout that its version 1.15 is published with."""
    here = machine()
    lines = [
        "Mon Aug 31 18:04:46 2026",
        "+-----------------------------------------------------------------------------+",
        "|  TECO-SMI: 1.15.0        SDAADriver: 3.2.0        SDAARuntime: 3.2.0        |",
        "|-------------------------------+----------------------+----------------------|",
        "| Index  Name                   | Bus-Id               | Health      SPE-Util |",
        "|        Temp          Pwr Usage|          Memory-Usage|                      |",
        "|=============================================================================|",
    ]
    rows = here.spas if here.rows == "spa" else 1
    for index in range(here.cards * rows):
        health = here.health.get(str(index // rows), "OK")
        lines += [
            f"| {index:>3}    TECO_AICARD_01         | 00000000:{16 + index // rows:02X}:00.0     | {health:<7}           0% |",
            f"|        40C                90W |        0MB / {15296 if rows > 1 else 65536}MB |                      |",
            "|-------------------------------+----------------------+----------------------|",
        ]
    return "\n".join(
        [
            *lines,
            "| Processes:  |",
            "|  Device       PID      Process name     Memory Usage |",
            "| No Process Running |",
            "",
        ]
    )
