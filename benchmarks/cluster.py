"""Files scored on a Ray cluster of this machine's processes: pairs a second of one worker and of several, and results beside one machine's.

    python benchmarks/cluster.py [--pairs 20000] [--words 8] [--model NAME] [--workers 1,2] [--rounds 1] [--lose-one] [--compare]

Each worker is a node of one CPU; the model is the embedded one, or any that needs no device (tests/external/zoo-overlap).
``--lose-one`` kills a node when a tenth of the blocks is scored; ``--compare`` scores the same file without a cluster and compares the
result files byte by byte. Times exclude the start of the nodes and include that of the actors. Needs the extra ``ray``.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster as Machines

from zoo import Reranker
from zoo.multi import MultiRequest, find_inputs
from zoo.multi import score_files as score_here
from zoo.ray import Cluster, score_files
from zoo.ray.worker import BLOCK
from zoo.settings import RunSettings

SETTINGS = RunSettings(model="zoo-reranker-tiny", target="cpu", threads=1, offline=True, batch_size=None)
WORDS = [
    "the",
    "giant",
    "panda",
    "bear",
    "china",
    "river",
    "stone",
    "model",
    "query",
    "passage",
    "long",
    "short",
    "tree",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--words", type=int, default=8, help="of a passage at most")
    parser.add_argument("--model", default="zoo-reranker-tiny")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lose-one", action="store_true")
    parser.add_argument("--compare", action="store_true")
    given = parser.parse_args()
    settings = replace(SETTINGS, model=given.model)
    counts = [int(each) for each in given.workers.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ZOO_HOME"] = str(folder / "home")
        data = folder / "in" / "pairs.jsonl"
        write(data, given.pairs, given.words)
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        for number in range(given.rounds):
            for count in counts if number % 2 == 0 else counts[::-1]:
                output = folder / f"out-{count}-{number}"
                seconds[count].append(on_cluster(settings, data, output, count, lose_one=given.lose_one))
                print(f"{count} workers: {given.pairs / seconds[count][-1]:.0f} pairs/s", flush=True)
        best = {count: min(each) for count, each in seconds.items()}
        print(json.dumps({str(count): round(best[counts[0]] / each, 3) for count, each in best.items()}))
        if given.compare:
            with Reranker.from_settings(settings) as reranker:
                started = time.perf_counter()
                score_here(reranker, find_inputs([data], folder / "one"), MultiRequest(output=folder / "one"))
                print(f"without a cluster: {given.pairs / (time.perf_counter() - started):.0f} pairs/s", flush=True)
            same = filecmp.cmp(folder / "one" / data.name, output / data.name, shallow=False)
            print("the results are", "the same, byte for byte" if same else "DIFFERENT")


def on_cluster(settings: RunSettings, data: Path, output: Path, workers: int, *, lose_one: bool) -> float:
    """Seconds from the check of the nodes to the written result."""
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200 << 20})
    others = [machines.add_node(num_cpus=1, object_store_memory=200 << 20) for _ in range(workers - 1)]
    ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
    blocks = sum(1 for _ in data.open()) // BLOCK

    def shown(rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for count, row in enumerate(rows):
            if lose_one and others and count == blocks // 10:
                machines.remove_node(others.pop(), allow_graceful=False)
                print("a node is killed", flush=True)
            yield row

    try:
        started = time.perf_counter()
        cluster = Cluster.prepare(settings, actors=workers, read=[data])
        done = score_files(cluster, find_inputs([data], output), MultiRequest(output=output), shown=shown)
        assert not done.failed, done.failed
        return time.perf_counter() - started
    finally:
        ray.shutdown()
        machines.shutdown()


def write(path: Path, pairs: int, words: int) -> None:
    source = random.Random(7)
    path.parent.mkdir(parents=True)
    with path.open("w") as handle:
        for n in range(pairs):
            passage = " ".join(source.choices(WORDS, k=source.randrange(1, words + 1)))
            handle.write(json.dumps({"id": n, "query": f"what is {n // 50}?", "passage": passage}) + "\n")


if __name__ == "__main__":
    main()
