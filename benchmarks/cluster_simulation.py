"""A cluster that is not here: block by block, what many nodes, their network and the machine of the command would do.

    python benchmarks/cluster_simulation.py [--nodes 100] [--pairs 1000000000] [--rates 10,100,1000] [--lose] [--measure]

Readers read files into blocks, as many ahead of the actors as Ray Data lets wait; a block goes over its reader's network card to the first
actor that is free (one a node), and its scores to the driver, which takes them one after the other. Rates are an actor's pairs a second.
Times of blocks differ as those of the embedded model do, which ``--measure`` takes anew. ``--lose`` takes one node away half way: its block
is computed again when Ray has noticed. What is measured and where stands in docs/cluster.md; nothing here needs Ray.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

BLOCK = 1024
"""Pairs of a block, as zoo.ray.worker cuts them."""
READ = 200_000
"""Pairs a second that a reader reads and cuts into blocks (measured on JSON lines)."""
TAKE = 63_500
"""Pairs a second that the driver takes in: it writes 93,000 a second and reads the input again at 200,000 (both measured)."""
READERS, AHEAD = 32, 4
"""Files that are read at once, and blocks that wait or are computed, for each actor."""
PAIR_BYTES, SCORE_BYTES = 600, 21
NOTICED = 25.0
"""Seconds until Ray takes a node that is silent for lost (measured)."""
SPREAD = (
    0.901,
    0.945,
    0.976,
    0.981,
    0.981,
    0.990,
    0.991,
    0.996,
    0.997,
    0.999,
    1.003,
    1.013,
    1.014,
    1.052,
    1.064,
    1.097,
)
"""Times of blocks over their mean as ``--measure`` took them: processor seconds of 16 blocks of the embedded model."""


@dataclass
class Outcome:
    """What a run came to. ``of_ideal`` is the time that the actors need if they never wait, over the whole time."""

    rate: float
    hours: float
    of_ideal: float
    driver_busy: float
    most_blocks_at_driver: int
    megabytes_at_driver: float
    busiest_link: float
    last_block_after_loss_s: float = 0.0


def simulate(
    pairs: int, nodes: int, rate: float, *, gigabits: float, spread: Sequence[float], lose: bool, seed: int = 1
) -> Outcome:
    """Blocks in the order in which they are read. Every resource is the time at which it is free next."""
    draw = random.Random(seed)
    blocks = -(-pairs // BLOCK)
    mean = statistics.fmean(spread)
    wire = BLOCK * PAIR_BYTES * 8 / gigabits / 1e9
    readers = [(0.0, number % nodes) for number in range(min(READERS, max(2, nodes)))]
    actors, links = [(0.0, number) for number in range(nodes)], [0.0] * nodes
    used, starts, ends = [0.0] * nodes, list[float](), list[float]()
    lost_at = blocks * BLOCK / (nodes * rate) / 2 if lose else float("inf")
    again: list[float] = []  # moments from which blocks of the lost node can be computed again
    late = 0.0
    while len(starts) < blocks or again:
        if again and (len(starts) == blocks or again[0] <= actors[0][0]):
            ready, repeated = heapq.heappop(again), True
        else:
            free, node = heapq.heappop(readers)
            room = starts[len(starts) - AHEAD * nodes] if len(starts) >= AHEAD * nodes else 0.0
            read = max(free, room) + BLOCK / READ
            links[node] = ready = max(links[node], read) + wire
            heapq.heappush(readers, (max(read, ready - wire), node))  # a block ahead of the network card
            used[node] += wire
            repeated = False
        begun, actor = heapq.heappop(actors)
        begun = max(begun, ready)
        end = begun + BLOCK / rate * draw.choice(spread) / mean
        if not repeated:
            starts.append(begun)
        if actor == 0 and end > lost_at:  # what the node had is lost, and the node with it
            heapq.heappush(again, max(begun, lost_at) + NOTICED)
            continue
        late = max(late, end - lost_at) if repeated else late
        heapq.heappush(actors, (end, actor))
        ends.append(end)
    ends.sort()
    taken, waiting, most = 0.0, list[float](), 0
    for end in ends:
        taken = max(taken, end) + BLOCK / TAKE
        while waiting and waiting[0] <= end:
            heapq.heappop(waiting)
        heapq.heappush(waiting, taken)
        most = max(most, len(waiting))
    ideal = pairs / (nodes * rate)
    return Outcome(
        rate=rate,
        hours=round(taken / 3600, 2),
        of_ideal=round(ideal / taken, 3),
        driver_busy=round(blocks * BLOCK / TAKE / taken, 3),
        most_blocks_at_driver=most,
        megabytes_at_driver=round(most * BLOCK * SCORE_BYTES / 1e6, 2),
        busiest_link=round(max(used) / taken, 4),
        last_block_after_loss_s=round(late, 1),
    )


def measured(blocks: int = 16, pairs: int = 128) -> list[float]:
    """Processor seconds of blocks of the embedded model, smaller ones, over their mean."""
    from texts import corpora, passages

    from zoo import Reranker

    texts, found = iter(passages(corpora(()), blocks * pairs, 60)), list[float]()
    with Reranker.open("zoo-reranker-tiny", device="cpu", threads=1, offline=True) as reranker:
        for number in range(blocks):
            block = [(f"what is said of number {number}?", next(texts)) for _ in range(pairs)]
            began = time.process_time()
            reranker.score(block)
            found.append(time.process_time() - began)
    mean = statistics.fmean(found)
    return sorted(round(each / mean, 3) for each in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=1_000_000_000)
    parser.add_argument("--rates", default="10,100,1000")
    parser.add_argument("--gigabits", type=float, default=10.0, help="a second of each node's network card")
    parser.add_argument("--lose", action="store_true")
    parser.add_argument("--measure", action="store_true")
    given = parser.parse_args()
    spread = measured() if given.measure else SPREAD
    print("times of blocks over their mean:", spread)
    for rate in map(float, given.rates.split(",")):
        found = simulate(given.pairs, given.nodes, rate, gigabits=given.gigabits, spread=spread, lose=given.lose)
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main()
