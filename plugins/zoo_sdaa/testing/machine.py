"""The machine that the fake runtime simulates: its cards, its speed and its faults. It reaches every process through the environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

VARIABLE = "ZOO_FAKE_SDAA"
VISIBLE, ENGINES, OLDER = "SDAA_VISIBLE_DEVICES", "MAX_ENGINE_NUMS", "TECO_INFER_TVM_RUN"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a test wants the fake to be."""

    cards: int = 1
    spas: int = 4
    """SPAs of a card."""
    rows: Literal["spa", "card"] = "spa"
    """What one row of teco-smi, and so one index in SDAA_VISIBLE_DEVICES, stands for; both are published."""
    health: dict[str, str] = field(default_factory=dict)
    """Card number (as text) to what teco-smi says of it, if that is not OK."""
    dropped: tuple[int, ...] = ()
    """Cards whose SPE-Util is N/A: they have dropped out."""
    layout: Literal["1.15", "1.10"] = "1.15"
    """The version of teco-smi whose table is printed; they have SPE-Util on different lines."""
    generation: Literal[1, 2] = 1
    """2: ``tecoinference`` is there too, and ``tvm`` only compiles."""
    both: bool = False
    """Generation 1 runs engines as well, beside generation 2."""
    tvm: bool = True
    """Whether ``tvm`` is there. Generation 2 runs compiled engines without it."""
    version: str = "0.9.0"
    device_seconds: float = 0.0
    """Device time of a call; 0: whatever computing it takes."""
    fail_at: int = 0
    """The call that fails, counted from 1 in each process; 0: none."""
    lose: int = -1
    """The card that is lost, at its call ``lose_at``; -1: none."""
    lose_at: int = 1
    lose_how: Literal["error", "exit", "segfault", "hang"] = "error"
    busy: tuple[int, ...] = ()
    """Cards that have no memory left for an engine."""
    loses_types: bool = False
    """Whether the float16 conversion leaves types to be inferred before the build."""
    without: tuple[str, ...] = ()
    """Attributes this version does not have: ``tvm.runtime.save_engine``, ``Context.start_timing``."""
    changed: tuple[str, ...] = ()
    """Functions that have another signature in this version."""

    def environment(self, log: Path) -> dict[str, str]:
        """What a process must find in its environment to be on this machine."""
        return {VARIABLE: json.dumps({**asdict(self), "log": str(log)})}


def machine() -> Machine:
    """The machine this process is on."""
    settings = _settings()
    settings.pop("log")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    return Machine(**values)


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


def chat(text: str) -> None:
    """Print as a library in C does: on the file descriptor 1, past Python's ``sys.stdout``. Results must stay clean of it."""
    os.write(1, f"fake TecoInference: {text}\n".encode())


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
    """What ``teco-smi`` prints here, in a layout that one of its versions is published with."""
    here = machine()
    newer = here.layout == "1.15"
    head = [
        "|  TECO-SMI: 1.15.0        SDAADriver: 3.2.0        SDAARuntime: 3.2.0        |",
        "|-------------------------------+----------------------+----------------------|",
        "| Index  Name                   | Bus-Id               | Health      SPE-Util |",
        "|        Temp          Pwr Usage|          Memory-Usage|                      |",
    ]
    if not newer:
        head = [
            "|  TCML: 1.10.0        SDAADriver: 3.2.0        SDAARuntime: 3.2.0            |",
            "|-------------------------------+----------------------+----------------------|",
            "| Index  Name                   | Bus-Id               | Health      Volatile |",
            "|        Temp          Pwr Usage|          Memory-Usage|             SPE-Util |",
        ]
    bar = "+-----------------------------------------------------------------------------+"
    lines = ["Mon Aug 31 18:04:46 2026", bar, *head, f"|{'=' * 77}|"]
    rows = here.spas if here.rows == "spa" else 1
    for index in range(here.cards * rows):
        number = index // rows
        gone = number in here.dropped
        health, used = here.health.get(str(number), "OK"), "N/A" if gone else "0%"
        total = 15296 if rows > 1 else 65536
        temperature, memory = ("N/A", "N/A / N/A") if gone else ("40C", f"0MB / {total}MB")
        first, second = (used, "") if newer else ("", used)
        lines += [
            f"| {index:>3}    TECO_AICARD_01         | 00000000:{16 + number:02X}:00.0     | {health:<15} {first:>4} |",
            f"|        {temperature:<10}        90W | {memory:>20} | {second:>20} |",
            "|-------------------------------+----------------------+----------------------|",
        ]
    processes = [
        "| Processes:  |",
        "|  Device       PID      Process name     Memory Usage |",
        "| No Process Running |",
        "",
    ]
    return "\n".join([*lines, *processes])
