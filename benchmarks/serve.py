"""`zoo serve` under load, beside zoo's own Reranker on the same pairs in the same run.

    python benchmarks/serve.py --threads 1
    python benchmarks/serve.py --model ./FOLDER --shapes 10x128 --clients 1,16 --seconds 5 --rounds 1 --json
    python benchmarks/serve.py --seconds 2 --requests 100000      # memory after so many requests of one pair

The server runs in a process of its own. In turns, each for --seconds: the Reranker alone (the ceiling), closed loops (each client sends
its next request when it has its answer), and open loops (requests at random times of a fixed mean rate, a share of the ceiling). Latency
runs from the moment at which a request was meant to be sent. The client needs a core of its own: leave it one with --threads.
Another server can be measured with --url, at the path --path.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any
from urllib.parse import urlsplit

from machine import machine, median, report
from texts import corpora, passages

from zoo import Reranker

KINDS = 64
"""Different requests of each shape."""


@dataclass
class Load:
    """What became of the requests of one loop."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    def summary(self, documents: int) -> dict[str, float]:
        ordered = sorted(self.latencies) or [float("nan")]

        def at(share: float) -> float:
            return round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2)

        asked = sum(self.statuses.values())
        return {
            "requests": asked,
            "pairs_per_second": round(self.statuses[200] * documents / self.seconds, 1),
            "p50_ms": at(0.5),
            "p95_ms": at(0.95),
            "p99_ms": at(0.99),
            "max_ms": at(1.0),
            "share_429": round(self.statuses[429] / asked, 4) if asked else 0.0,
            "other_errors": asked - self.statuses[200] - self.statuses[429],
        }


class Connection:
    """One kept-alive connection that asks and waits: little else, so that the client takes little of the CPU."""

    def __init__(self, url: str, path: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 80
        self._head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        assert length
        await reader.readexactly(int(length[1]))
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(url: str, path: str, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Each of ``clients`` asks again as soon as it has its answer."""
    load, began = Load(), time.perf_counter()

    async def client(number: int) -> None:
        connection, place = Connection(url, path), number * 7
        while (sent := time.perf_counter()) < began + seconds:
            load.statuses[await connection.ask(bodies[place % len(bodies)])] += 1
            load.latencies.append(time.perf_counter() - sent)
            place += 1
        connection.close()

    await asyncio.gather(*map(client, range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def open_loop(url: str, path: str, bodies: Sequence[bytes], rate: float, seconds: float, seed: int) -> Load:
    """``rate`` requests a second at random times; each has a connection, however many are open."""
    load, idle, choose = Load(), list[Connection](), random.Random(seed)
    began = time.perf_counter()

    async def one(meant: float, body: bytes) -> None:
        connection = idle.pop() if idle else Connection(url, path)
        status = await connection.ask(body)
        load.statuses[status] += 1
        if status == 200:
            load.latencies.append(time.perf_counter() - meant)
        idle.append(connection)

    tasks, meant, number = [], began, 0
    while (meant := meant + choose.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(meant - time.perf_counter(), 0))
        tasks.append(asyncio.ensure_future(one(meant, bodies[number % len(bodies)])))
        number += 1
    await asyncio.gather(*tasks)
    load.seconds = time.perf_counter() - began
    for connection in idle:
        connection.close()
    return load


def ceiling(reranker: Reranker, pairs: Sequence[tuple[str, str]], count: int) -> float:
    """Pairs a second of the Reranker alone, given ``count`` at once."""
    began = time.perf_counter()
    reranker.score(islice(cycle(pairs), count))
    return count / (time.perf_counter() - began)


def own_times(reranker: Reranker, request: Sequence[tuple[str, str]], seconds: float) -> tuple[float, float]:
    """Median seconds of a request's pairs by the Reranker alone, asked for ``seconds``, and mean seconds of the device in it."""
    taken, device = [], list[float]()
    reranker.on_batch(lambda batch: device.append(batch.seconds))
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        reranker.score(request)
        taken.append(time.perf_counter() - began)
    reranker.on_batch(None)
    return median(taken), sum(device) / len(taken)


def requests(documents: int, tokens: int) -> list[list[tuple[str, str]]]:
    """Different requests of pairs that are near ``tokens`` long: the texts are longer, and the server cuts at --shape."""
    texts = list(passages(corpora(()), KINDS * documents, tokens * 8))
    return [
        [(f"what is said of number {n}?", text) for text in texts[n * documents : (n + 1) * documents]]
        for n in range(KINDS)
    ]


@contextlib.contextmanager
def server(model: str, tokens: int, threads: int) -> Iterator[str]:
    """The address of a server that is ready."""
    command = [
        sys.executable,
        "-m",
        "zoo",
        "serve",
        model,
        "--offline",
        "--port",
        "0",
        "--no-access-log",
        "--target",
        "cpu",
    ]
    process = subprocess.Popen(
        [*command, "--shape", str(tokens), "--threads", str(threads)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.match(r"ready: (\S+)", line):
                yield found[1]
                return
        raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait()


def memory(url: str) -> float:
    """Megabytes of the server, as it says itself; 0 if it does not."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        found = re.search(r"^process_resident_memory_bytes (\S+)", answer.read().decode(), re.MULTILINE)
    return round(float(found[1]) / 1e6, 1) if found else 0.0


def body_of(request: Sequence[tuple[str, str]]) -> bytes:
    return json.dumps({"query": request[0][0], "documents": [text for _, text in request]}).encode()


def measured(options: argparse.Namespace, documents: int, tokens: int) -> dict[str, Any]:
    """One shape: all loops in turns, ``--rounds`` times."""
    asked = requests(documents, tokens)
    bodies, pairs = [body_of(request) for request in asked], [pair for request in asked for pair in request]
    ceilings, loops = list[float](), defaultdict[str, list[Load]](list)
    with contextlib.ExitStack() as stack:
        reranker = stack.enter_context(
            Reranker.open(options.model, device="cpu", max_length=tokens, threads=options.threads, offline=True)
        )
        url = options.url or stack.enter_context(server(options.model, tokens, options.threads))
        own, device = own_times(reranker, asked[0], options.seconds)
        asyncio.run(closed_loop(url, options.path, bodies, 4, 1.0))  # warm
        before = memory(url) if not options.url else 0.0
        for number in range(options.rounds):
            ceilings.append(ceiling(reranker, pairs, max(round(options.seconds / own * documents), documents)))
            for clients in options.clients:
                load = asyncio.run(closed_loop(url, options.path, bodies, clients, options.seconds))
                loops[f"closed, {clients} clients"].append(load)
            for share in options.shares:
                rate = share * median(ceilings) / documents
                load = asyncio.run(open_loop(url, options.path, bodies, rate, options.seconds, number))
                loops[f"open, {share:g} of the ceiling"].append(load)
        after = memory(url) if not options.url else 0.0
    return {
        "shape": f"{documents}x{tokens}",
        "ceiling_pairs_per_second": [round(each, 1) for each in ceilings],
        "request_alone_ms": round(1000 * own, 2),
        "device_alone_ms": round(1000 * device, 2),
        "memory_mb": [before, after],
        "loops": {name: _together(each).summary(documents) for name, each in loops.items()},
    }


def _together(loads: Sequence[Load]) -> Load:
    found = Load()
    for load in loads:
        found.latencies += load.latencies
        found.statuses += load.statuses
        found.seconds += load.seconds
    return found


def memory_over(options: argparse.Namespace) -> dict[str, Any]:
    """Megabytes after each tenth of ``--requests`` requests of one pair."""
    bodies = [body_of([(f"question {n}", f"answer {n}")]) for n in range(10_000)]
    found = []
    with server(options.model, 512, options.threads) as url:
        for _ in range(10):
            done = 0
            while done < options.requests / 10:
                load = asyncio.run(closed_loop(url, options.path, bodies, 16, options.seconds))
                assert set(load.statuses) == {200}
                done += load.statuses[200]
            found.append(memory(url))
    return {"memory_mb": found}


def shown(result: dict[str, Any]) -> None:
    print(
        f"\n{result['shape']}: the Reranker alone {result['ceiling_pairs_per_second']} pairs/s; one request alone "
        f"{result['request_alone_ms']} ms, of which the device {result['device_alone_ms']} ms; server {result['memory_mb']} MB"
    )
    best = median(result["ceiling_pairs_per_second"])
    for name, row in result["loops"].items():
        print(
            f"  {name:24} {row['pairs_per_second']:9.1f} pairs/s ({row['pairs_per_second'] / best:.2f})  p50 {row['p50_ms']} "
            f"p95 {row['p95_ms']} p99 {row['p99_ms']} max {row['max_ms']} ms  429: {row['share_429']:.1%} of {row['requests']}"
            f"{'  ERRORS: ' + str(row['other_errors']) if row['other_errors'] else ''}"
        )


def numbers(kind: type, text: str) -> list[Any]:
    return [kind(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo-reranker-tiny")
    parser.add_argument("--url", help="a server that runs already, of the same model and length")
    parser.add_argument("--path", default="/v1/rerank")
    parser.add_argument("--shapes", default="10x128,30x256,100x512", help="documents of a request x tokens of a pair")
    parser.add_argument("--clients", default="1,2,4,8,16,32,64")
    parser.add_argument("--shares", default="0.5,0.8", help="rates of the open loops, as shares of the ceiling")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of the server, and of the Reranker beside it")
    parser.add_argument("--requests", type=int, default=0, help="only look at the memory over so many requests")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.clients, options.shares = numbers(int, options.clients), numbers(float, options.shares)
    settings = {**machine(["onnxruntime", "starlette", "uvicorn", "tokenizers"]), **vars(options)}
    if options.requests:
        report(settings, memory_over(options) | {}, as_json=True)
        return
    results = []
    for shape in options.shapes.split(","):
        documents, _, tokens = shape.partition("x")
        results.append(measured(options, int(documents), int(tokens)))
        shown(results[-1])
    report(settings, {"results": results}, as_json=options.json)


if __name__ == "__main__":
    main()
