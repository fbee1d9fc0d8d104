"""Model files side by side on the CPU: what opening them takes, and pairs a second by turns.

    python benchmarks/sessions.py LABEL=FOLDER[,weights=shared] ... [--shapes 1x16,1x128,2x128] [--rounds N] [--threads N] [--json]

FOLDER is what ``zoo export --output`` made. Each file is first opened in a process of its own, which then computes one batch of two rows of
128 tokens: seconds of CPU to the open session, peak memory then and after the batch, and the part of it that no file backs. Then all are
opened in one process and compute one batch of each shape by turns, round after round, so that a noisy machine is noisy for all. Medians
of the seconds of CPU are shown, and the speed over the first one's. The last columns compare scores with the first one's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, median, report
from numpy.typing import NDArray

from zoo.cpus import usable_threads
from zoo.types import Artifact, SessionOptions
from zoo_cpu.device import CpuDevice

PACKAGES = ("zoo-runner", "onnxruntime", "numpy")


def opened(contestant: str, threads: int) -> Any:
    folder, *options = contestant.split(",")
    artifact = Artifact(model=Path(folder) / "model.onnx", precision="fp32", origin="a benchmark")
    extra = {"parallel_batches": "one"} | dict(option.split("=", 1) for option in options)
    return CpuDevice().open(
        artifact, SessionOptions(precision="fp32", batch_size=1, max_length=512, threads=threads, extra=extra)
    )


def batch(contestant: str, rows: int, tokens: int, names: Any) -> dict[str, NDArray[np.int64]]:
    """Random ids without padding, the same for all."""
    config = json.loads((Path(contestant.split(",")[0]) / "config.json").read_text(encoding="utf-8"))
    ids = np.random.default_rng(rows * tokens).integers(5, config["vocab_size"], (rows, tokens))
    full = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {name: full[name] for name in names}


def alone(contestant: str, threads: int) -> None:
    """What the child process does: print one JSON object."""
    wall, cpu = time.perf_counter(), time.process_time()
    session = opened(contestant, threads)
    found = {"open_wall": time.perf_counter() - wall, "open_cpu": time.process_time() - cpu, "open_gb": peak()}
    session.submit(batch(contestant, 2, 128, session.input_names)).result()
    print(json.dumps({**found, "batch_gb": peak(), "private_gb": private()}))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def private() -> float:
    """Memory that no file backs, in GB; Linux tells."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Anonymous")).split()[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="+", metavar="LABEL=FOLDER[,weights=shared]")
    parser.add_argument("--shapes", default="1x16,1x128,2x128")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.contestants[0], arguments.threads)
        return
    contestants = dict(each.split("=", 1) for each in arguments.contestants)
    rows: dict[str, dict[str, Any]] = {}
    for label, contestant in contestants.items():
        command = [sys.executable, __file__, "--alone", "--threads", str(arguments.threads), contestant]
        rows[label] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    sessions = {label: opened(contestant, arguments.threads) for label, contestant in contestants.items()}
    for shape in arguments.shapes.split(","):
        compare(shape, contestants, sessions, rows, arguments.rounds)
    for label, row in rows.items():
        print(label, ", ".join(f"{name} {value:.3g}" for name, value in row.items()))
    report({**machine(PACKAGES), **vars(arguments)}, rows, as_json=arguments.json)


def compare(
    shape: str, contestants: dict[str, str], sessions: dict[str, Any], rows: dict[str, dict[str, Any]], rounds: int
) -> None:
    """Add to each row what one shape took and gave."""
    size, tokens = (int(part) for part in shape.split("x"))
    seconds: dict[str, list[float]] = {label: [] for label in sessions}
    scores: dict[str, Any] = {}
    for number in range(rounds + 1):  # the first is for warming up
        for label, session in sessions.items():
            given = batch(contestants[label], size, tokens, session.input_names)
            before = time.process_time()
            scores[label] = session.submit(given).result()["logits"]
            if number:
                seconds[label].append(time.process_time() - before)
    first = next(iter(sessions))
    for label, row in rows.items():
        row[f"{shape}_cpu_s"] = median(seconds[label])
        row[f"{shape}_speed"] = median(seconds[first]) / median(seconds[label])
        row[f"{shape}_error"] = float(np.abs(scores[label] - scores[first]).max())


if __name__ == "__main__":
    main()
