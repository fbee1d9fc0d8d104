"""A running server on loopback, and rerankers for it that do what a test wants."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np

from fakes import NumberModel, NumberSession, pipeline_of
from zoo import hookimpl
from zoo.reranker import Reranker
from zoo.scoring.batch_runner import BatchRunner
from zoo.scoring.queue import ScoringQueue
from zoo.serve.models import ServedModel
from zoo.serve.server import Server
from zoo.serve.settings import ServeSettings
from zoo.types import Checkpoint, Encoding, Encodings, Pair, ShapeRule, Tensors

SOON = 30.0
"""Seconds after which a test that waits has failed."""

LONGEST = 16
"""Tokens that the fake model reads."""


class WordModel(NumberModel):
    """A word is a token; the logit is the number that the passage's first word is, or else 0. A pair has three special tokens."""

    @hookimpl
    def preprocess(self, pairs: Sequence[Pair]) -> Encodings:
        return Encodings([self._row(pair) for pair in pairs], {"input_ids": 0})

    @staticmethod
    def _row(pair: Pair) -> Encoding:
        query, passage = pair.query.split(), pair.passage.split()
        first = passage[0] if passage else "0"
        logit = round(max(min(float(first), 1e6), -1e6) * 8) if first.lstrip("-").replace(".", "", 1).isdecimal() else 0
        kept = max(min(len(query) + len(passage) + 3, LONGEST), 1)
        cut = len(query) + len(passage) + 3 > LONGEST
        return Encoding({"input_ids": [logit] * kept}, cut and len(query) + 3 <= LONGEST, len(query) + 3 > LONGEST)


class WordSession(NumberSession):
    """Gives back the logit that each row spells, in eighths."""

    def _run(self, inputs: Tensors) -> Tensors:
        return {"score": super()._run(inputs)["score"] / np.float32(8)}


class FakeReranker(Reranker):
    """A reranker over a fake model and a fake device."""

    def __init__(self, session: NumberSession | None = None, model: object | None = None) -> None:
        self.session = session or WordSession(ShapeRule(tokens=64))  # type: ignore[assignment]
        self.pipeline, self.max_length = pipeline_of(model or WordModel()), LONGEST
        self.device, self.precision = SimpleNamespace(name="fake"), "fp32"  # type: ignore[assignment]
        self.checkpoint = Checkpoint(folder=Path(), served_by="a test")
        runner = BatchRunner(self.pipeline, self.session, None)
        self.batch_tokens = runner.batch_tokens(LONGEST)
        self._queue = ScoringQueue(runner, LONGEST)
        self._model = SimpleNamespace(close=lambda: None)  # type: ignore[assignment]
        self._closed = False


class Running:
    """A server in a thread. ``client`` talks to it."""

    def __init__(self, server: Server) -> None:
        self.server, self.url = server, server.address
        self.service = server.service
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.client = httpx.Client(base_url=self.url, timeout=SOON)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    def post(self, path: str, content: Any = None, **more: Any) -> httpx.Response:
        return self.client.post(path, json=content, **more) if content is not None else self.client.post(path, **more)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 if it has none; the sum over labels that are not given."""
        total = 0.0
        for family in self.service.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total

    def _run(self) -> None:
        try:
            self.server.serve_until_told()
        except BaseException as error:
            self.error = error

    def drain(self) -> None:
        """What SIGTERM does."""
        self.server.loop.call_soon_threadsafe(self.server.drain)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(SOON)
        assert not self.thread.is_alive(), "the server does not end"


@contextlib.contextmanager
def serving(
    *openers: Callable[[], Reranker],
    wait: bool = True,
    device_timeout: float = 60.0,
    aliases: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Running]:
    """A server of models ``fake``, ``fake-2``, ...; ``aliases`` are other names of the first."""
    names = ["fake", *(f"fake-{number}" for number in range(2, len(openers) + 1))]
    served = [
        ServedModel(
            name, opener, names=[f"org/{name}", *(aliases if name == "fake" else ())], device_timeout=device_timeout
        )
        for name, opener in zip(names, openers or (FakeReranker,), strict=False)
    ]
    wanted = ServeSettings(**{"port": 0, "access_log": False, **settings})
    running = Running(Server(served, wanted, lambda address: None))
    try:
        if wait:
            until(lambda: running.service.ready)
        yield running
    finally:
        running.stop()


def until(true: Callable[[], bool], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)
