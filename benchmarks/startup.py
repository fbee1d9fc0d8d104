"""How long commands take that compute nothing, or next to nothing: their start-up, beside the interpreter's own.

Each command is a process of its own, started by turns in every round; the medians are shown, and beside the clock's seconds the CPU's
own, which other programs on the machine disturb less. A first round is not counted: it leaves compiled modules behind and files in
the page cache, so the figures are those of a warm start.

    python benchmarks/startup.py [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from machine import machine, median, report

INTERPRETER = "python -c pass"
COMMANDS = (
    "zoo --help",
    "zoo models",
    "zoo devices",
    "zoo run zoo-reranker-tiny --mode single",
)


class Took(NamedTuple):
    """One process: seconds by the clock, and seconds of CPU in all its threads and children."""

    clock: float
    cpu: float


def measure(command: Sequence[str]) -> Took:
    """Run ``command`` to its end. Raises SystemExit with what it said where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    clock = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return Took(clock, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def arguments(name: str) -> list[str]:
    """The command as it is started: this interpreter's own ``zoo``, whatever the PATH says."""
    if name == INTERPRETER:
        return [sys.executable, "-c", "pass"]
    program = Path(sys.executable).with_name("zoo")
    zoo = [str(program)] if program.is_file() else [sys.executable, "-m", "zoo"]
    return [*zoo, *name.split()[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count; the medians are shown")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")

    settings = {**machine(["zoo-runner", "numpy", "onnxruntime", "tokenizers"]), "rounds": args.rounds}
    taken: dict[str, list[Took]] = {name: [] for name in (INTERPRETER, *COMMANDS)}
    for number in range(args.rounds + 1):
        for name, times in taken.items():
            took = measure(arguments(name))
            if number:
                times.append(took)

    seconds = {name: median([took.clock for took in times]) for name, times in taken.items()}
    cpu = {name: median([took.cpu for took in times]) for name, times in taken.items()}
    for name in taken:
        print(f"{name}: {seconds[name]:.3f} s, {cpu[name]:.3f} s of CPU (medians of {args.rounds})")
    report(settings, {"seconds": seconds, "cpu_seconds": cpu}, as_json=args.json)


if __name__ == "__main__":
    main()
