"""Kill runs at random moments, by hand: ``python tests/kill_runs.py --kills 100 --seed 5``.

The embedded model scores pairs, a data set and a folder of tables, and a checkpoint is exported. A chain kills one of them a few times by
SIGKILL or SIGTERM, lets it finish, and compares what it wrote with an uninterrupted run, byte for byte. Results, a line a chain, and the
sum are on stdout; the exit code is 1 if something differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import small_collection as small
from random_checkpoints import weights_only

MODEL = Path(__file__).resolve().parent.parent / "models" / "zoo-reranker-tiny"
ENDS = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGTERM: {128 + signal.SIGTERM, -signal.SIGTERM}}
"""Exit codes. SIGTERM before Python has begun to run zoo ends it as it ends any process."""
VARYING = ("report.json", "report.html", "journal.jsonl", "manifest.json")
"""These, and the marks of finished files (.done), hold times; journals are compared through what is made of them."""


def _run(
    words: list[str], home: Path, end_after: float | None = None, number: signal.Signals = signal.SIGKILL
) -> tuple[int, str, float]:
    """Exit code, stderr and seconds of a run that is ended by a signal after ``end_after`` seconds, if it is still there."""
    started = time.monotonic()
    environment = {**os.environ, "ZOO_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = process.communicate(timeout=end_after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors, time.monotonic() - started


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in VARYING and path.suffix not in (".partial", ".done")
    }


def _input(folder: Path) -> None:
    source = random.Random(1)
    words = " ".join(small.PASSAGES.values()).split()

    def text(most: int) -> str:
        return " ".join(source.choices(words, k=source.randrange(3, most)))

    rows = [{"query": text(12), "passage": text(200)} for _ in range(240)]
    (folder / "pairs.jsonl").write_text(small.json_lines(rows), encoding="utf-8")
    (folder / "tables").mkdir()
    for number in range(4):
        part = rows[number * 60 : number * 60 + 60]
        (folder / "tables" / f"{number}.jsonl").write_text(small.json_lines(part), encoding="utf-8")
    weights_only(MODEL, folder / "checkpoint")


def _kinds() -> dict[str, Callable[[Path, Path], list[str]]]:
    run = ["run", "zoo-reranker-tiny", "-q", "--offline", "--target", "cpu", "--mode"]
    return {
        "single": lambda given, out: [
            *run,
            "single",
            "--data-path",
            str(given / "pairs.jsonl"),
            "--output",
            str(out / "scores.txt"),
        ],
        "valid": lambda given, out: [*run, "valid", "--limit", "6", "--top-k", "20", "--output", str(out)],
        "multi": lambda given, out: [*run, "multi", "--data-path", str(given / "tables"), "--output", str(out)],
        "export": lambda given, out: [
            "export",
            str(given / "checkpoint"),
            "-q",
            "--offline",
            "--output",
            str(out / "made"),
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", choices=list(_kinds()), help="kill runs of one kind alone")
    asked = parser.parse_args()
    kinds = {name: words for name, words in _kinds().items() if asked.only in (None, name)}
    source, kills, faults, chains = random.Random(asked.seed), {"SIGKILL": 0, "SIGTERM": 0}, [], 0
    with tempfile.TemporaryDirectory(prefix="zoo-kills-") as given:
        root = Path(given)
        (root / "input").mkdir()
        _input(root / "input")
        sound: dict[str, tuple[dict[str, bytes], float]] = {}
        for name, words in kinds.items():
            (root / name).mkdir()
            code, errors, _ = _run(words(root / "input", root / name), root / "home" / name)
            assert code == 0, errors
            shutil.rmtree(root / "home", ignore_errors=True)
            (root / f"{name}-again").mkdir()
            code, errors, seconds = _run(words(root / "input", root / f"{name}-again"), root / "home" / name)
            assert _content(root / name) == _content(root / f"{name}-again") != {}, f"{name} is not repeatable"
            sound[name] = _content(root / name), seconds
        while sum(kills.values()) < asked.kills:
            name = list(kinds)[chains % len(kinds)]
            words, (expected, seconds) = kinds[name], sound[name]
            output, home = root / "out" / str(chains), root / "home" / str(chains)
            output.mkdir(parents=True)
            chain = []
            for _ in range(min(source.randrange(3, 7), asked.kills - sum(kills.values()))):
                number = source.choice([signal.SIGKILL, signal.SIGTERM])
                code, errors, took = _run(words(root / "input", output), home, source.uniform(0.1, seconds), number)
                if code == 0:  # it was faster
                    break
                kills[number.name] += 1
                chain.append(f"{number.name} after {took:.1f} s: {code}")
                if code not in ENDS[number] or "Traceback" in errors:
                    faults.append(f"{name}: {chain[-1]}: {errors[-1500:]}")
            code, errors, _ = _run(words(root / "input", output), home)
            if code != 0 or "Traceback" in errors:
                faults.append(f"{name} does not finish after {chain}: {code}: {errors[-1500:]}")
            elif _content(output) != expected:
                faults.append(f"{name} wrote other files after {chain}")
            chains += 1
            sys.stdout.write(f"{name}: {len(chain)} kills ({'; '.join(chain)})\n")
            sys.stdout.flush()
            shutil.rmtree(output)
            shutil.rmtree(home, ignore_errors=True)
    sys.stdout.write(json.dumps({"kills": kills, "chains": chains, "faults": faults}, indent=2) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
