"""From a checkpoint to running scores: zoo's default path beside the peers' loading and Tecorigin's recipe. Time and peak memory of each.

    python benchmarks/export_full.py CHECKPOINT [--only zoo|peers|tecorigin] [--rounds N] [--python NAME=PATH] [--json]

CHECKPOINT is a folder of bge-reranker-v2-m3's shape with weights (2.27 GB). zoo and Tecorigin's recipe start from nothing: an empty cache,
an empty folder. Then zoo, with what it keeps, and its peers load the checkpoint and score the two pairs of the README, each in a process
of its own, by turns, round after round; medians are shown. A peer is sentence-transformers or FlagEmbedding, in the Python that --python
names for it (--python FlagEmbedding=/venvs/fe/bin/python), else in this one.
Tecorigin's recipe is optimum-cli with the options of Tecorigin's page; it needs 17 GB of memory at full size, and says nothing if
it is killed for that. Peak memory is that of the largest process, as the system counts it (ru_maxrss). Tecorigin's recipe
needs the export extra.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import installed, median

TECORIGIN = [
    *("--task", "text-classification", "--framework", "pt"),
    *("--batch_size", "1", "--sequence_length", "8192", "--monolith", "--optimize", "O1"),
]
PROGRAMS = ("zoo-runner", "torch", "transformers", "optimum-onnx", "onnx", "onnxruntime")
PAIRS = """
import sys
text = "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species endemic to China."
pairs = [("what is panda?", "hi"), ("what is panda?", text)]
"""
PEERS = {
    "sentence-transformers": """
import torch
from sentence_transformers import CrossEncoder
model = CrossEncoder(sys.argv[1], max_length=512, device="cpu")
print(model.predict(pairs, activation_fn=torch.nn.Identity()))
""",
    "FlagEmbedding": """
from FlagEmbedding import FlagReranker
if __name__ == "__main__":
    print(FlagReranker(sys.argv[1], use_fp16=False, devices="cpu", max_length=512).compute_score(pairs))
""",
}
FIGURES = ("seconds", "cpu_seconds", "peak_memory_gb")


def measured(label: str, command: list[str], environment: dict[str, str]) -> dict[str, object]:
    """Run one command to its end, its output to stderr."""
    print(f"{label}: {' '.join(command)}", file=sys.stderr, flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "what": label,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_gb": round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9, 2),
        "exit_code": process.returncode,
    }


def zoo_command(checkpoint: Path) -> list[str]:
    """The command of the README."""
    words = ["run", "bge-reranker-v2-m3", "--config-path", str(checkpoint), "--mode", "single", "--target", "cpu"]
    return [sys.executable, "-m", "zoo", *words]


def zoo_path(checkpoint: Path, scratch: Path) -> list[dict[str, object]]:
    """From nothing and again."""
    command, home = zoo_command(checkpoint), scratch / "zoo-home"
    environment = {**os.environ, "ZOO_HOME": str(home)}
    rows = [measured("zoo run, from nothing to scores", command, environment)]
    rows[0]["written_mb"] = round(sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 1e6, 2)
    rows.append(measured("zoo run, again (cached)", command, environment))
    rows.append(measured("the same, weights shared", [*command, "--device-option", "weights=shared"], environment))
    shutil.rmtree(home / "artifacts")
    rows.append(measured("zoo run, digests known, no artifact", command, environment))
    return rows


def peers_path(checkpoint: Path, scratch: Path, pythons: Mapping[str, str], rounds: int) -> list[dict[str, object]]:
    """Zoo and its peers by turns. One that fails, as one that is not installed, has its exit code and no round after."""
    commands = {"zoo run": zoo_command(checkpoint)}
    for name, script in PEERS.items():
        file = scratch / f"to_scores_{name}.py"  # a name of its own, or it would import itself
        file.write_text(PAIRS + script, encoding="utf-8")
        commands[name] = [pythons.get(name, sys.executable), str(file), str(checkpoint)]
    environment = {**os.environ, "ZOO_HOME": str(scratch / "zoo-home"), "HF_HUB_OFFLINE": "1"}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for number in range(rounds + 1):  # the first makes what is kept, and compiles modules
        for name, command in commands.items():
            if number == 0 or found[name][-1]["exit_code"] == 0:
                found[name].append(measured(f"{name}, to two scores", command, environment))
    for rows in found.values():
        counted = rows[1:] or rows
        rows[0] = {**rows[0], **{figure: round(median([row[figure] for row in counted]), 2) for figure in FIGURES}}
    return [rows[0] for rows in found.values()]


def tecorigin_path(checkpoint: Path, scratch: Path) -> list[dict[str, object]]:
    """Tecorigin's export; simplifying and running come on top."""
    optimum = shutil.which("optimum-cli", path=str(Path(sys.executable).parent)) or shutil.which("optimum-cli")
    if optimum is None:
        sys.exit("optimum-cli is not installed: pip install 'zoo-runner[export]'")
    command = [optimum, "export", "onnx", "--model", str(checkpoint), str(scratch / "tecorigin"), *TECORIGIN]
    return [measured("Tecorigin's recipe, export alone", command, dict(os.environ))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--only", choices=["zoo", "peers", "tecorigin"])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the peers that count")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint.resolve()
    rows = []
    with tempfile.TemporaryDirectory(prefix="export-full-") as scratch:
        if arguments.only in (None, "zoo"):
            rows += zoo_path(checkpoint, Path(scratch))
        if arguments.only in (None, "peers"):
            pythons = dict(each.split("=", 1) for each in arguments.python)
            rows += peers_path(checkpoint, Path(scratch), pythons, arguments.rounds)
        if arguments.only in (None, "tecorigin"):
            rows += tecorigin_path(checkpoint, Path(scratch))
    settings = {
        "checkpoint_bytes": sum(path.stat().st_size for path in checkpoint.glob("*.safetensors")),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "load_at_end": [round(load, 1) for load in os.getloadavg()],
        "versions": {name: version for name in PROGRAMS if (version := installed(name))},
    }
    print(json.dumps(settings, indent=2))
    print(f"{'':36}{'wall s':>10}{'CPU s':>10}{'peak GB':>10}{'exit':>6}{'MB written':>12}")
    for row in rows:
        figures = f"{row['seconds']:>10}{row['cpu_seconds']:>10}{row['peak_memory_gb']:>10}{row['exit_code']:>6}"
        print(f"{row['what']:36}{figures}{row.get('written_mb', ''):>12}")
    if arguments.json:
        print(json.dumps({"settings": settings, "rows": rows}))


if __name__ == "__main__":
    main()
