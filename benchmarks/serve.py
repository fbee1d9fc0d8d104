"""`zoo serve` under load, beside zoo's own Reranker on the same pairs in the same run.

    python benchmarks/serve.py --threads 1
    python benchmarks/serve.py --model ./FOLDER --shapes 10x128 --clients 1,16 --seconds 5 --rounds 1 --json
    python benchmarks/serve.py --clients 8 --shares 0.5 --beside http://127.0.0.1:7997 --beside-path /rerank
    python benchmarks/serve.py --one-pair
    python benchmarks/serve.py --overload 180 --shapes 10x128     # twice the ceiling for so many seconds
    python benchmarks/serve.py --seconds 2 --requests 100000      # memory after so many requests of one pair

The server runs in a process of its own. In turns, each for --seconds: the Reranker alone (the ceiling), closed loops (each client sends
its next request when it has its answer), and open loops (requests at random times of a fixed mean rate, a share of the ceiling). Latency
runs from the moment at which a request was meant to be sent. "in order" is what the same open loop's requests would take on a device that
computes them one after the other, each in the time of a request alone. The client needs a core of its own: leave it one with --threads.
Another server can be measured with --url, at the path --path, and by turns with ours with --beside.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

from load import Connection, Load, at, closed_loop, in_order, open_loop, together
from machine import machine, median, report
from texts import corpora, passages

from zoo import Reranker
from zoo.bench.inputs import runner_of
from zoo.types import Pair

KINDS = 64
"""Different requests of each shape."""

CPU_SECONDS = "process_cpu_seconds_total"
"""The metric that says how much a server has computed: other programs on the machine change it less than they change times."""


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


def metric(url: str, name: str) -> float:
    """What a server's /metrics says, 0 if it does not say it."""
    try:
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            found = re.search(rf"^{name} (\S+)", answer.read().decode(), re.MULTILINE)
    except urllib.error.HTTPError:
        return 0.0
    return float(found[1]) if found else 0.0


def memory(url: str) -> float:
    """Megabytes of the server."""
    return round(metric(url, "process_resident_memory_bytes") / 1e6, 1)


def closed(url: str, path: str, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """A closed loop, with the CPU time that the server took meanwhile."""
    before = metric(url, CPU_SECONDS)
    load = asyncio.run(closed_loop(url, path, bodies, clients, seconds))
    load.cpu_seconds = metric(url, CPU_SECONDS) - before
    return load


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
                servers = [("closed", url, options.path)]
                if options.beside:
                    servers.append(("the other", options.beside, options.beside_path))
                for name, *place in servers[:: -1 if number % 2 else 1]:
                    loops[f"{name}, {clients} clients"].append(closed(*place, bodies, clients, options.seconds))
            for share in options.shares:
                rate = share * median(ceilings) / documents
                load = asyncio.run(open_loop(url, options.path, bodies, rate, options.seconds, number))
                loops[f"open, {share:g} of the ceiling"].append(load)
        after = memory(url) if not options.url else 0.0
    found = {name: together(each) for name, each in loops.items()}
    return {
        "shape": f"{documents}x{tokens}",
        "ceiling_pairs_per_second": [round(each, 1) for each in ceilings],
        "request_alone_ms": round(1000 * own, 2),
        "device_alone_ms": round(1000 * device, 2),
        "memory_mb": [before, after],
        "loops": {name: load.summary(documents) | _in_order(load, own) for name, load in found.items()},
    }


def _in_order(load: Load, seconds: float) -> dict[str, float]:
    return {"in_order_p99_ms": round(1000 * at(in_order(load.meant, seconds), 0.99), 2)} if load.meant else {}


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
            print(found, flush=True)
    return {"memory_mb": found}


def one_pair(options: argparse.Namespace) -> dict[str, Any]:
    """A request of one pair and a call of the bare session with the same tokens, by turns: median milliseconds of both."""
    found = {}
    for tokens in (32, 128, 512):
        with (
            Reranker.open(
                options.model, device="cpu", max_length=tokens, threads=options.threads, offline=True
            ) as bare,
            server(options.model, tokens, options.threads) as url,
        ):
            pair = requests(1, tokens)[0]
            batch = runner_of(bare).batch(bare.pipeline.preprocess([Pair(*pair[0])]))
            length = batch.inputs["attention_mask"].shape[1]
            times = asyncio.run(_by_turns(bare, batch.inputs, url, options.path, body_of(pair), options.seconds))
            session, request = map(median, times)
            found[f"1x{length}"] = {
                "session_ms": round(1000 * session, 2),
                "request_ms": round(1000 * request, 2),
                "ratio": round(request / session, 3),
                "ratio_of_the_fastest_tenths": round(at(sorted(times[1]), 0.1) / at(sorted(times[0]), 0.1), 3),
                "turns": len(times[0]),
            }
            print(f"1x{length}: {found[f'1x{length}']}", flush=True)
    return found


async def _by_turns(
    bare: Reranker, inputs: Any, url: str, path: str, body: bytes, seconds: float
) -> tuple[list[float], list[float]]:
    session, request, connection = list[float](), list[float](), Connection(url, path)
    end = time.perf_counter() + seconds
    while len(session) < 20 or time.perf_counter() < end:
        began = time.perf_counter()
        bare.session.submit(inputs).result()
        between = time.perf_counter()
        status, _, _ = await connection.ask(body)
        assert status == 200
        request.append(time.perf_counter() - between)
        session.append(between - began)
    connection.close()
    return session[5:], request[5:]


def overload(options: argparse.Namespace, documents: int, tokens: int) -> dict[str, Any]:
    """Requests at twice the ceiling for ``--overload`` seconds: what is answered, how soon, with which scores, and the memory meanwhile."""
    asked = requests(documents, tokens)
    bodies, seen = [body_of(request) for request in asked], defaultdict[str, int](int)
    memories, ended = list[float](), threading.Event()
    with contextlib.ExitStack() as stack:
        reranker = stack.enter_context(
            Reranker.open(options.model, device="cpu", max_length=tokens, threads=options.threads, offline=True)
        )
        right = [reranker.score(request, scores="probability").tolist() for request in asked]
        pairs = [pair for request in asked for pair in request]
        rate = 2 * ceiling(reranker, pairs, len(pairs)) / documents
        url = stack.enter_context(server(options.model, tokens, options.threads))
        asyncio.run(closed_loop(url, options.path, bodies, 4, 2.0))  # warm

        def saw(number: int, status: int, head: str, content: bytes) -> None:
            if status == 429:
                seen["429 without Retry-After"] += not re.search(r"retry-after: [1-9]", head)
            elif status == 200:
                scores = {each["index"]: each["relevance_score"] for each in json.loads(content)["results"]}
                worst = max(abs(scores[place] - score) for place, score in enumerate(right[number]))
                seen["wrong scores"] += worst > 1e-5

        def watch() -> None:
            while not ended.wait(options.overload / 10):
                memories.append(memory(url))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            load = asyncio.run(open_loop(url, options.path, bodies, rate, options.overload, 0, saw))
        finally:
            ended.set()
            watching.join()
        began = time.perf_counter()
        after = asyncio.run(Connection(url, options.path).ask(bodies[0]))[0]
        return {
            "asked_per_second": round(rate, 1),
            **load.summary(documents),
            "last_answer_after_s": round(load.seconds - options.overload, 1),
            "429_without_retry_after": seen["429 without Retry-After"],
            "wrong_scores": seen["wrong scores"],
            "memory_mb": memories,
            "afterwards": {"status": after, "seconds": round(time.perf_counter() - began, 3)},
        }


def shown(result: dict[str, Any]) -> None:
    print(
        f"\n{result['shape']}: the Reranker alone {result['ceiling_pairs_per_second']} pairs/s; one request alone "
        f"{result['request_alone_ms']} ms, of which the device {result['device_alone_ms']} ms; server {result['memory_mb']} MB"
    )
    best = median(result["ceiling_pairs_per_second"])
    for name, row in result["loops"].items():
        print(
            f"  {name:24} {row['pairs_per_second']:9.1f} pairs/s ({row['pairs_per_second'] / best:.2f})  p50 {row['p50_ms']} "
            f"p95 {row['p95_ms']} p99 {row['p99_ms']}{_beside(row)} max {row['max_ms']} ms  "
            f"{_cpu(row)}429: {row['share_429']:.1%} of {row['requests']}"
            f"{'  ERRORS: ' + str(row['other_errors']) if row['other_errors'] else ''}"
        )


def _beside(row: dict[str, Any]) -> str:
    return f" (in order: {row['in_order_p99_ms']})" if "in_order_p99_ms" in row else ""


def _cpu(row: dict[str, Any]) -> str:
    return f"{row['cpu_ms_per_pair']} ms of CPU a pair  " if "cpu_ms_per_pair" in row else ""


def numbers(kind: type, text: str) -> list[Any]:
    return [kind(each) for each in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo-reranker-tiny")
    parser.add_argument("--url", help="a server that runs already, of the same model and length")
    parser.add_argument("--path", default="/v1/rerank")
    parser.add_argument(
        "--beside", help="another server of the same model and length, which gets the closed loops too, by turns"
    )
    parser.add_argument("--beside-path", default="/rerank")
    parser.add_argument("--one-pair", action="store_true", help="only a request of one pair beside the bare session")
    parser.add_argument("--overload", type=float, default=0.0, help="only twice the ceiling, for so many seconds")
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
        report(settings, memory_over(options), as_json=True)
        return
    if options.one_pair:
        report(settings, one_pair(options), as_json=options.json)
        return
    results = []
    for shape in options.shapes.split(","):
        documents, _, tokens = shape.partition("x")
        if options.overload:
            report(settings, overload(options, int(documents), int(tokens)), as_json=True)
            continue
        results.append(measured(options, int(documents), int(tokens)))
        shown(results[-1])
    if results:
        report(settings, {"results": results}, as_json=options.json)


if __name__ == "__main__":
    main()
