"""Worker processes: the same scores as one session's, and an error that names a worker that dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from conftest import PANDA, ROOT, Zoo
from zoo.errors import UnknownNameError, ZooError
from zoo.scoring.processes import Processes, open_on, shares
from zoo.types import Artifact, Session, SessionOptions, ShapeRule, Tensors

OPTIONS = SessionOptions(precision="fp32", batch_size=1, max_length=8, threads=2)
NOWHERE = Artifact(model=Path("none"), precision="fp32", origin="test")


RAISES, FAILS, GIVES_NONSENSE, GIVES_A_RIDDLE = -1, -2, -3, -4


class ParticularError(Exception):
    """It is not made of its message, so it does not come through a pipe."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} is not {second}")


class Riddle:
    """Can be sent, and not be read."""

    def __reduce__(self) -> tuple[type[ParticularError], tuple[()]]:
        return ParticularError, ()


class Dying:
    """Answers with its process number, and ends its process where the input says so."""

    input_names = ("input_ids",)
    shape_rule = ShapeRule(parallel_batches=2)

    device_seconds = None

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        command = int(inputs["input_ids"][0])
        if command > 0:
            os.kill(os.getpid(), command)
        future: Future[Tensors] = Future()
        if command == RAISES:
            raise UnknownNameError("shape", "7", ["8"])
        if command == FAILS:
            future.set_exception(ParticularError(1, 2))
            return future
        if command == GIVES_NONSENSE:
            future.set_result({"lock": threading.Lock()})  # type: ignore[dict-item]
            return future
        if command == GIVES_A_RIDDLE:
            future.set_result({"riddle": Riddle()})  # type: ignore[dict-item]
            return future
        future.set_result({"pid": np.array([os.getpid()])})
        return future

    def close(self) -> None: ...

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


class Queueing(Dying):
    """Computes one batch after the other, half a second each; what still waits when it is closed is cancelled."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)

    device_seconds = None

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        return self._pool.submit(self._compute)

    def _compute(self) -> Tensors:
        time.sleep(0.5)
        return {"pid": np.array([os.getpid()])}

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Timed(Dying):
    """Its runtime counts a quarter of a second a batch."""

    device_seconds = 0.0  # type: ignore[assignment]

    def submit(self, inputs: Tensors, outputs: Sequence[str] | None = None) -> Future[Tensors]:
        self.device_seconds += 0.25  # type: ignore[assignment,operator]
        return super().submit(inputs, outputs)


def timed(artifact: Artifact, options: SessionOptions) -> Session:
    return Timed()


def queueing(artifact: Artifact, options: SessionOptions) -> Session:
    return Queueing()


def dying(artifact: Artifact, options: SessionOptions) -> Session:
    return Dying()


def refusing(artifact: Artifact, options: SessionOptions) -> Session:
    raise ZooError("no such engine")


@pytest.fixture(autouse=True)
def _found_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(Path(__file__).parent)]))


def inputs(command: int = 0) -> Tensors:
    return {"input_ids": np.array([command])}


def test_work_is_shared_by_processes_of_their_own() -> None:
    with Processes.workers(dying, NOWHERE, OPTIONS, 2) as workers:
        assert workers.shape_rule.parallel_batches == 4
        assert list(workers.input_names) == ["input_ids"]
        pids = {int(worker.submit(inputs()).result(60)["pid"][0]) for worker in workers._children}
        assert len(pids) == 2
        assert os.getpid() not in pids


def test_device_time_is_that_of_the_busiest_worker() -> None:
    with Processes.workers(timed, NOWHERE, OPTIONS, 2) as workers:
        for child, batches in zip(workers._children, (1, 3), strict=True):
            for _ in range(batches):
                child.submit(inputs()).result(60)
        assert workers.device_seconds == 0.75
    with Processes.workers(dying, NOWHERE, OPTIONS, 2) as workers:
        assert workers.device_seconds is None, "no runtime here counts"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_named_and_nobody_waits_for_it(number: signal.Signals) -> None:
    with Processes.workers(dying, NOWHERE, OPTIONS, 2) as workers:
        second = workers._children[1]
        with pytest.raises(ZooError, match=rf"worker 2 of 2 \(process \d+\) has died: it was ended by {number.name}"):
            second.submit(inputs(number)).result(60)
        with pytest.raises(ZooError, match="worker 2 of 2"):
            second.submit(inputs()).result(60)


@pytest.mark.parametrize("told", [True, False], ids=["told to stop", "left by its run"])
def test_a_worker_stopped_with_batches_in_its_queue_ends_without_a_word(
    capfd: pytest.CaptureFixture[str], told: bool
) -> None:
    workers = Processes.workers(queueing, NOWHERE, OPTIONS, 2)
    for worker in workers._children:
        for _ in range(3):
            worker.submit(inputs())
        if not told:
            with socket.socket(fileno=os.dup(worker._pipe.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
    workers.close()
    assert [worker._process.returncode for worker in workers._children] == [0, 0]
    assert capfd.readouterr() == ("", "")


def test_what_hinders_a_worker_from_opening_is_said() -> None:
    with pytest.raises(ZooError, match="no such engine"):
        Processes.workers(refusing, NOWHERE, OPTIONS, 2)
    with pytest.raises(ZooError, match="there is no model file none"):
        Processes.workers(partial(open_on, "cpu"), NOWHERE, OPTIONS, 2)


@pytest.mark.parametrize(
    ("command", "told"),
    [(RAISES, "there is no shape '7'"), (FAILS, "ParticularError: 1 is not 2"), (GIVES_NONSENSE, "cannot be sent on")],
)
def test_whatever_a_session_raises_reaches_the_run(command: int, told: str) -> None:
    with Processes.workers(dying, NOWHERE, OPTIONS, 2) as workers:
        first = workers._children[0]
        with pytest.raises(Exception, match=told):
            first.submit(inputs(command)).result(60)
        assert first.submit(inputs()).result(60), "it goes on"


def test_an_answer_that_cannot_be_read_is_an_error_and_no_hang() -> None:
    with Processes.workers(dying, NOWHERE, OPTIONS, 2) as workers:
        with pytest.raises(
            ZooError, match=r"worker 1 of 2 \(process \d+\) gave an answer that cannot be read: TypeError"
        ):
            workers._children[0].submit(inputs(GIVES_A_RIDDLE)).result(60)
        assert workers._children[1].submit(inputs()).result(60), "the other one is as it was"


def test_more_workers_than_threads_are_refused() -> None:
    with pytest.raises(ZooError, match="3 workers need a thread each, and this process may use 2"):
        Processes.workers(dying, NOWHERE, OPTIONS, 3)


def test_every_cpu_belongs_to_one_worker() -> None:
    dealt = shares(2)
    if hasattr(os, "sched_getaffinity"):
        assert sorted(cpu for share in dealt for cpu in share) == sorted(os.sched_getaffinity(0))


def test_scores_are_those_of_one_worker(zoo: Zoo, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(pair) for pair in PANDA * 5), encoding="utf-8")

    def logits(*options: str) -> list[float]:
        result = zoo("run", "zoo-reranker-tiny", "--target", "cpu", "--data-path", path, "--json", *options)
        assert result.exit_code == 0, result.stderr
        return [json.loads(line)["logit"] for line in result.stdout.splitlines()]

    assert logits("--workers", "2", "--threads", "2") == pytest.approx(logits(), abs=1e-5)
