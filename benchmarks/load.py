"""Load for an HTTP server: closed loops, open loops, and what became of their requests."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Seen = Callable[[int, int, str, bytes], None]
"""Told of an answer: the number of the body that was sent, the status, the head in small letters, the content."""


@dataclass
class Load:
    """What became of the requests of one loop. ``meant`` are the moments at which those of an open loop were to be sent, from 0."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the server."""
    meant: list[float] = field(default_factory=list)

    def summary(self, documents: int) -> dict[str, float]:
        ordered = sorted(self.latencies) or [float("nan")]
        asked = sum(self.statuses.values())
        pairs = self.statuses[200] * documents
        return {
            "requests": asked,
            "pairs_per_second": round(pairs / self.seconds, 1),
            **({"cpu_ms_per_pair": round(1000 * self.cpu_seconds / pairs, 3)} if self.cpu_seconds and pairs else {}),
            **{f"p{share}_ms": round(1000 * at(ordered, share / 100), 2) for share in (50, 95, 99)},
            "max_ms": round(1000 * ordered[-1], 2),
            "share_429": round(self.statuses[429] / asked, 4) if asked else 0.0,
            "other_errors": asked - self.statuses[200] - self.statuses[429],
        }


def at(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def together(loads: Sequence[Load]) -> Load:
    """Several loops as one."""
    found = Load()
    for load in loads:
        found.latencies += load.latencies
        found.statuses += load.statuses
        found.meant += [found.seconds + moment for moment in load.meant]
        found.seconds += load.seconds
        found.cpu_seconds += load.cpu_seconds
    return found


def in_order(meant: Sequence[float], seconds: float) -> list[float]:
    """Latencies of a device that computes the same requests one after the other, as they come, each in ``seconds``."""
    free, found = 0.0, list[float]()
    for moment in meant:
        free = max(free, moment) + seconds
        found.append(free - moment)
    return sorted(found)


class Connection:
    """One kept-alive connection that asks and waits: little else, so that the client takes little of the CPU."""

    def __init__(self, url: str, path: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 80
        self._head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> tuple[int, str, bytes]:
        """Status, head and content of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        assert length
        content = await reader.readexactly(int(length[1]))
        if "connection: close" in head:
            self.close()
        return int(head.split(" ", 2)[1]), head, content

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
            status, _, _ = await connection.ask(bodies[place % len(bodies)])
            load.statuses[status] += 1
            load.latencies.append(time.perf_counter() - sent)
            place += 1
        connection.close()

    await asyncio.gather(*map(client, range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def open_loop(
    url: str,
    path: str,
    bodies: Sequence[bytes],
    rate: float,
    seconds: float,
    seed: int,
    seen: Seen = lambda *answer: None,
) -> Load:
    """``rate`` requests a second at random times; each has a connection, however many are open."""
    load, idle, choose = Load(), list[Connection](), random.Random(seed)
    began = time.perf_counter()

    async def one(meant: float, number: int) -> None:
        connection = idle.pop() if idle else Connection(url, path)
        status, head, content = await connection.ask(bodies[number])
        load.statuses[status] += 1
        if status == 200:
            load.latencies.append(time.perf_counter() - meant)
        idle.append(connection)
        seen(number, status, head, content)

    tasks, meant, number = [], began, 0
    while (meant := meant + choose.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(meant - time.perf_counter(), 0))
        load.meant.append(meant - began)
        tasks.append(asyncio.ensure_future(one(meant, number % len(bodies))))
        number += 1
    await asyncio.gather(*tasks)
    load.seconds = time.perf_counter() - began
    for connection in idle:
        connection.close()
    return load
