"""Busy, slow, gone: when requests are refused, late or abandoned, and what that costs the device."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from serving import SOON, FakeReranker, Running, WordSession, serving, until
from zoo.reranker import Reranker
from zoo.types import ShapeRule


class Held:
    """A reranker whose device computes nothing until ``release``."""

    def __init__(self, tokens: int = 16, parallel: int = 1) -> None:
        self.released = threading.Event()
        self.session = WordSession(ShapeRule(tokens=tokens, parallel_batches=parallel), self._wait)
        self.holding = False

    def _wait(self, number: int) -> None:
        if self.holding:
            assert self.released.wait(SOON)

    def open(self) -> Reranker:
        return FakeReranker(self.session)

    def hold(self) -> None:
        self.holding = True

    def release(self) -> None:
        self.holding = False
        self.released.set()

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.session.shapes)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def body(count: int = 1, words: int = 5) -> dict[str, Any]:
    return {"query": "q", "texts": [f"{n % 9} " + "x " * (words - 1) for n in range(count)]}


def asked(
    pool: ThreadPoolExecutor, server: Running, content: Any, path: str = "/rerank", **more: Any
) -> Future[httpx.Response]:
    return pool.submit(httpx.post, server.url + path, json=content, timeout=SOON, **more)


def test_past_the_limit_of_waiting_tokens_requests_are_refused_and_told_when_to_come_back(
    pool: ThreadPoolExecutor,
) -> None:
    held = Held(tokens=20)
    with serving(held.open, max_queued_tokens=70) as server:
        held.hold()
        waiting = [asked(pool, server, body(10))]  # finds nobody waiting: let in, whatever its size
        until(lambda: server.metric("zoo_queue_size") == 6, 10)  # two batches of two are with the device
        refused = server.post("/rerank", body(10))
        assert refused.status_code == 429
        assert refused.json()["error_type"] == "Overloaded"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert server.post("/v1/rerank", {"query": "q", "documents": ["1 2 3 4 5"] * 10}).json()["error"]["code"] == 429
        waiting.append(asked(pool, server, body(2)))  # this one fits
        held.release()
        assert [each.result().status_code for each in waiting] == [200, 200]
        assert server.post("/rerank", body(10)).status_code == 200
        assert server.metric("zoo_refused_requests_total", reason="busy") == 2


def test_a_request_of_any_size_is_let_in_if_nobody_waits() -> None:
    with serving(FakeReranker, max_queued_tokens=10) as server:
        assert len(server.post("/rerank", body(2000)).json()) == 2000


def test_a_late_request_is_answered_504_on_time_and_its_pairs_are_not_computed(pool: ThreadPoolExecutor) -> None:
    held = Held()
    with serving(held.open) as server:
        held.hold()
        first = asked(pool, server, body(1))
        until(lambda: len(held.session.shapes) == 2)  # the first is the warm-up
        began = time.monotonic()
        late = server.post("/rerank", body(50), headers={"X-Request-Timeout": "0.3"})
        assert late.status_code == 504
        assert 0.25 < time.monotonic() - began < 3
        assert (
            server.post(
                "/v1/rerank", {"query": "q", "documents": ["1"]}, headers={"X-Request-Timeout": "0.05"}
            ).status_code
            == 504
        )
        before = held.rows
        held.release()
        assert first.result().status_code == 200
        assert server.post("/rerank", body(1)).status_code == 200
        assert held.rows - before <= 2 + 1, "what the device had already, and the last request"
        assert server.metric("zoo_cancelled_pairs_total") >= 48


@pytest.mark.parametrize("bad", ["soon", "0", "-1", "nan", ""])
def test_a_timeout_that_makes_no_sense_is_refused(bad: str) -> None:
    with serving(FakeReranker) as server:
        assert server.post("/rerank", body(), headers={"X-Request-Timeout": bad}).status_code == 422


def test_a_request_cannot_ask_for_more_time_than_the_server_gives(pool: ThreadPoolExecutor) -> None:
    held = Held()
    with serving(held.open, timeout=0.3) as server:
        held.hold()
        assert server.post("/rerank", body(), headers={"X-Request-Timeout": "3600"}).status_code == 504
        held.release()


def test_a_client_that_goes_away_is_not_computed_for(pool: ThreadPoolExecutor) -> None:
    held = Held()
    with serving(held.open) as server:
        held.hold()
        first = asked(pool, server, body(1))
        until(lambda: len(held.session.shapes) == 2)
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{server.url}/rerank", json=body(500), timeout=0.2)
        until(lambda: server.service.in_progress == 1, 5)
        assert server.metric("zoo_queue_size") == 0
        held.release()
        assert first.result().status_code == 200
        assert held.rows <= 2 + 1 + 2
        assert server.metric("zoo_requests_total", status="499") == 1
        assert server.metric("zoo_cancelled_pairs_total") >= 498


def test_disconnects_under_load_leave_the_server_as_it_was(pool: ThreadPoolExecutor) -> None:
    with serving(Held(tokens=64).open) as server:
        stop = time.monotonic() + 2.0

        def steady() -> set[int]:
            statuses = set()
            with httpx.Client(base_url=server.url, timeout=SOON) as client:
                while time.monotonic() < stop:
                    answer = client.post("/rerank", json=body(20))
                    statuses.add(answer.status_code)
                    if answer.status_code == 200:
                        assert answer.json()[0]["index"] == 8
            return statuses

        def impatient() -> None:
            while time.monotonic() < stop:
                content = b'{"query":"q","texts":["1","2","3"]}'
                with socket.create_connection(server.address) as raw:
                    raw.sendall(
                        b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content) + content
                    )
                time.sleep(0.01)

        impatience = [pool.submit(impatient) for _ in range(4)]
        for statuses in [pool.submit(steady) for _ in range(4)]:
            assert 200 in statuses.result() <= {200, 429}
        for each in impatience:
            each.result()
        until(lambda: server.service.in_progress == 0)
        until(lambda: server.metric("zoo_queue_size") == 0)
        assert server.post("/rerank", body(20)).status_code == 200
        assert server.metric("zoo_requests_total", status="499") > 10


def test_single_requests_are_answered_while_a_large_one_is_computed(pool: ThreadPoolExecutor) -> None:
    with serving(lambda: FakeReranker(WordSession(ShapeRule(tokens=32), lambda number: time.sleep(0.002)))) as server:
        large = asked(pool, server, body(2000))
        until(lambda: server.metric("zoo_queue_size") > 500)
        for _ in range(5):
            assert server.post("/rerank", body(1)).status_code == 200
            assert not large.done()
        assert len(large.result().json()) == 2000


def test_requests_share_batches(pool: ThreadPoolExecutor) -> None:
    held = Held(tokens=160)
    with serving(held.open) as server:
        held.hold()
        requests = [asked(pool, server, body(1))]
        until(lambda: len(held.session.shapes) == 2)
        requests += [asked(pool, server, body(1))]
        until(lambda: server.service.in_progress == 2)
        time.sleep(0.05)  # it is with the device as well, which has one batch ahead
        requests += [asked(pool, server, body(1)) for _ in range(10)]
        until(lambda: server.metric("zoo_queue_size") == 10)
        held.release()
        assert {each.result().status_code for each in requests} == {200}
        until(lambda: server.metric("zoo_pairs_total") == 12)
        assert server.metric("zoo_batch_pairs_count") <= 4


def test_while_it_loads_the_server_says_how_far_it_is(pool: ThreadPoolExecutor) -> None:
    import logging

    go = threading.Event()

    def slowly() -> Reranker:
        logging.getLogger("zoo.export").info("step 2 of 4: flash, from /home/somebody/models/model.onnx")
        assert go.wait(SOON)
        return FakeReranker()

    logging.getLogger("zoo").setLevel(logging.INFO)
    with serving(slowly, wait=False) as server:
        until(lambda: server.client.get("/ready").json()["models"][0].get("progress") is not None)
        ready = server.client.get("/ready")
        assert ready.status_code == 503
        assert ready.headers["retry-after"]
        [model] = ready.json()["models"]
        assert model["state"] == "loading"
        assert model["progress"] == "step 2 of 4: flash, from model.onnx"
        for path in ("/health", "/ping", "/v2/health/ready", "/v1/health/ready", "/v2/models/fake/ready"):
            assert server.client.get(path).status_code == 503, path
        assert server.client.get("/v2/health/live").status_code == 200
        refused = server.post("/rerank", body())
        assert refused.status_code == 503
        assert refused.json()["error_type"] == "Unhealthy"
        assert refused.headers["retry-after"]
        assert server.client.get("/info").status_code == 200
        assert server.metric("zoo_model_ready") == 0
        go.set()
        until(lambda: server.client.get("/ready").status_code == 200)
        assert server.post("/rerank", body()).status_code == 200
        assert server.client.get("/v2/models/fake/ready").status_code == 200


def test_a_drain_answers_what_is_open_refuses_what_is_new_and_ends(pool: ThreadPoolExecutor) -> None:
    held = Held()
    with serving(held.open) as server:
        held.hold()
        open_ones = [asked(pool, server, body(5)) for _ in range(4)]
        until(lambda: server.service.in_progress == 4)
        server.drain()
        until(lambda: server.service.draining)
        assert server.client.get("/ready").status_code == 503
        assert server.client.get("/v2/health/live").status_code == 200
        refused = server.post("/rerank", body())
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        held.release()
        assert [each.result().status_code for each in open_ones] == [200] * 4
        server.thread.join(SOON)
        assert not server.thread.is_alive()
        assert server.error is None


def test_a_drain_does_not_wait_for_ever(pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    with serving(held.open, drain_timeout=0.2) as server:
        held.hold()
        stuck = asked(pool, server, body(5))
        until(lambda: server.service.in_progress == 1)
        threading.Timer(3.0, held.release).start()
        server.drain()
        server.thread.join(SOON)
        assert not server.thread.is_alive()
        assert stuck.result().status_code == 503
