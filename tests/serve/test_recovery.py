"""A device that fails: never a wrong score, never a hang, and the service works again or its process ends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

import zoo.serve.models
from serving import SOON, FakeReranker, WordSession, serving, until
from zoo.errors import ZooError
from zoo.reranker import Reranker
from zoo.types import ShapeRule, Tensors

BODY = {"query": "q", "texts": ["1", "2", "3"], "raw_scores": True}


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.serve.models, "REOPENING", (0.0, 0.05, 0.05))
    monkeypatch.setattr(zoo.serve.models, "LOOK_EVERY", 0.02)


def test_a_device_that_failed_once_answers_503_and_serves_on() -> None:
    broken = threading.Event()

    def work(number: int) -> None:
        if broken.is_set():
            broken.clear()
            raise RuntimeError("cosmic ray")

    opened = []
    with serving(lambda: opened.append(1) or FakeReranker(WordSession(ShapeRule(tokens=64), work))) as server:
        broken.set()
        refused = server.post("/rerank", BODY)
        assert refused.status_code == 503
        assert refused.json()["error_type"] == "Unhealthy"
        assert refused.headers["retry-after"]
        until(lambda: server.post("/rerank", BODY).status_code == 200)
        assert opened == [1], "it could still score a pair"


def test_a_device_that_cannot_score_any_more_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    sessions: list[WordSession] = []
    broken = threading.Event()

    def opened() -> Reranker:
        mine = len(sessions)

        def work(number: int) -> None:
            if mine == 0 and broken.is_set():
                raise RuntimeError("worker 1 of 2 has died")

        sessions.append(WordSession(ShapeRule(tokens=64), work))
        return FakeReranker(sessions[-1])

    with serving(opened) as server, ThreadPoolExecutor(4) as pool:
        assert server.post("/rerank", BODY).status_code == 200
        broken.set()
        answers = [pool.submit(server.post, "/rerank", BODY) for _ in range(8)]
        assert {each.result().status_code for each in answers} <= {503, 200}
        until(lambda: len(sessions) == 2 and server.service.ready)
        answer = server.post("/rerank", BODY)
        assert [each["score"] for each in answer.json()] == [3, 2, 1]
        assert server.client.get("/ready").status_code == 200


def test_a_device_that_gives_no_result_is_opened_again() -> None:
    release, hang = threading.Event(), threading.Event()
    sessions: list[WordSession] = []

    def opened() -> Reranker:
        mine = len(sessions)

        def work(number: int) -> None:
            if mine == 0 and hang.is_set():
                assert release.wait(SOON)

        class Closable(WordSession):
            def close(self) -> None:
                release.set()
                super().close()

        sessions.append(Closable(ShapeRule(tokens=64), work))
        return FakeReranker(sessions[-1])

    with serving(opened, device_timeout=0.2) as server:
        hang.set()
        assert server.post("/rerank", BODY).status_code == 503
        until(lambda: server.service.ready and len(sessions) == 2)
        assert server.post("/rerank", BODY).status_code == 200


def test_a_device_that_hangs_for_good_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.serve.models, "CLOSING_SECONDS", 0.1)
    release, hang = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if hang.is_set():
            release.wait(SOON)

    class Stuck(FakeReranker):
        def close(self) -> None:
            release.wait(SOON)
            super().close()

    with serving(lambda: Stuck(WordSession(ShapeRule(tokens=64), work)), device_timeout=0.1, timeout=0.5) as server:
        hang.set()
        assert server.post("/rerank", BODY).status_code in (503, 504)
        server.thread.join(SOON)
        assert not server.thread.is_alive()
        assert isinstance(server.error, ZooError)
        assert "hangs" in str(server.error)
        release.set()


def test_a_model_that_cannot_be_opened_again_ends_the_process() -> None:
    opened = []
    broken = threading.Event()

    def opener() -> Reranker:
        if opened:
            raise ZooError("there is no card")
        opened.append(1)

        def work(number: int) -> None:
            if broken.is_set():
                raise RuntimeError("gone")

        return FakeReranker(WordSession(ShapeRule(tokens=64), work))

    with serving(opener) as server:
        broken.set()
        assert server.post("/rerank", BODY).status_code == 503
        server.thread.join(SOON)
        assert "cannot be opened again: there is no card" in str(server.error)


def test_a_model_that_cannot_be_opened_at_all_ends_the_process() -> None:
    def opener() -> Reranker:
        raise ZooError("no such weights")

    with serving(opener, wait=False) as server:
        server.thread.join(SOON)
        assert "no such weights" in str(server.error)


def test_a_score_that_is_no_number_is_an_error_of_its_request_alone() -> None:
    class Damaged(WordSession):
        def _run(self, inputs: Tensors) -> Tensors:
            scores = super()._run(inputs)["score"]
            return {"score": np.where(scores == 13, np.nan, scores).astype(np.float32)}

    with serving(lambda: FakeReranker(Damaged(ShapeRule(tokens=64)))) as server, ThreadPoolExecutor(8) as pool:
        bad = [pool.submit(server.post, "/rerank", {"query": "q", "texts": ["1", "13"]}) for _ in range(8)]
        good = [pool.submit(server.post, "/rerank", BODY) for _ in range(8)]
        for answer in bad:
            assert answer.result().status_code == 424
            assert answer.result().json()["error_type"] == "Backend"
        assert {each.result().status_code for each in good} == {200}
        assert server.post("/v1/rerank", {"query": "q", "documents": ["13"]}).status_code == 500
        assert server.service.ready


def test_a_device_that_blocks_the_scorer_is_opened_again() -> None:
    """It fails once, and then hangs where deadlines are watched: inside ``submit``."""
    broken, release = threading.Event(), threading.Event()
    sessions: list[WordSession] = []

    class Blocking(WordSession):
        def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
            if self is sessions[0] and broken.is_set():
                if len(self.shapes) < 2:
                    self.shapes.append((0, 0))
                    raise RuntimeError("a fault")
                assert release.wait(SOON)
            return super().submit(inputs, outputs)

        def close(self) -> None:
            release.set()
            super().close()

    def opened() -> Reranker:
        sessions.append(Blocking(ShapeRule(tokens=64)))
        return FakeReranker(sessions[-1])

    with serving(opened, device_timeout=1.0) as server:
        broken.set()
        assert server.post("/rerank", BODY).status_code == 503
        until(lambda: server.service.ready and len(sessions) == 2)
        assert server.post("/rerank", BODY).status_code == 200


@pytest.mark.parametrize("fault", ["raises", "hangs"])
def test_a_model_that_opens_and_cannot_score_is_closed_before_it_is_opened_again(fault: str) -> None:
    broken, release = threading.Event(), threading.Event()
    opened: list[FakeReranker] = []
    closed: list[int] = []

    class Counted(FakeReranker):
        def close(self) -> None:
            closed.append(opened.index(self))
            release.set()
            super().close()

    def opener() -> Reranker:
        mine = len(opened)
        assert closed == list(range(mine)), "the device has room for one"

        def work(number: int) -> None:
            if mine == 0 and broken.is_set():
                raise RuntimeError("gone")
            if mine == 1:
                if fault == "raises":
                    raise RuntimeError("out of memory")
                release.clear()
                assert release.wait(SOON)

        opened.append(Counted(WordSession(ShapeRule(tokens=64), work)))
        return opened[-1]

    with serving(opener, device_timeout=1.0) as server:
        broken.set()
        assert server.post("/rerank", BODY).status_code == 503
        until(lambda: server.service.ready and len(opened) >= 3)
        assert server.post("/rerank", BODY).status_code == 200


def test_a_fault_of_an_opener_is_a_model_that_has_failed() -> None:
    def opener() -> Reranker:
        raise RuntimeError("a plugin's own fault")

    with serving(opener, wait=False) as server:
        server.thread.join(SOON)
        assert "a plugin's own fault" in str(server.error)
        assert server.service.models.all[0].state == "failed"
