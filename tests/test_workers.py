"""Worker processes: the same scores as one session's, and an error that names a worker that dies."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from conftest import PANDA, Zoo
from zoo.errors import ZooError
from zoo.types import Artifact, Session, SessionOptions, ShapeRule, Tensors
from zoo.workers import Workers, open_on, shares

OPTIONS = SessionOptions(precision="fp32", batch_size=1, max_length=8, threads=2)
NOWHERE = Artifact(model=Path("none"), precision="fp32", origin="test")


class Dying:
    """Answers with its process number, and ends its process where the input says so."""

    input_names = ("input_ids",)
    shape_rule = ShapeRule(lanes=2)

    def submit(self, inputs: Tensors) -> Future[Tensors]:
        command = int(inputs["input_ids"][0])
        if command:
            os.kill(os.getpid(), command)
        future: Future[Tensors] = Future()
        future.set_result({"pid": np.array([os.getpid()])})
        return future

    def close(self) -> None: ...

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


def dying(artifact: Artifact, options: SessionOptions) -> Session:
    return Dying()


def refusing(artifact: Artifact, options: SessionOptions) -> Session:
    raise ZooError("no such engine")


@pytest.fixture(autouse=True)
def _found_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def inputs(command: int = 0) -> Tensors:
    return {"input_ids": np.array([command])}


def test_work_is_shared_by_processes_of_their_own() -> None:
    with Workers(dying, NOWHERE, OPTIONS, 2) as workers:
        assert workers.shape_rule.lanes == 4
        assert list(workers.input_names) == ["input_ids"]
        pids = {int(worker.submit(inputs()).result(60)["pid"][0]) for worker in workers._workers}
        assert len(pids) == 2
        assert os.getpid() not in pids


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_named_and_nobody_waits_for_it(number: signal.Signals) -> None:
    with Workers(dying, NOWHERE, OPTIONS, 2) as workers:
        second = workers._workers[1]
        with pytest.raises(ZooError, match=rf"worker 2 of 2 \(process \d+\) has died: it was ended by {number.name}"):
            second.submit(inputs(number)).result(60)
        with pytest.raises(ZooError, match="worker 2 of 2"):
            second.submit(inputs()).result(60)


def test_what_hinders_a_worker_from_opening_is_said() -> None:
    with pytest.raises(ZooError, match="no such engine"):
        Workers(refusing, NOWHERE, OPTIONS, 2)
    with pytest.raises(ZooError, match="there is no model file none"):
        Workers(partial(open_on, "cpu"), NOWHERE, OPTIONS, 2)


def test_more_workers_than_threads_are_refused() -> None:
    with pytest.raises(ZooError, match="may use 2 threads"):
        Workers(dying, NOWHERE, OPTIONS, 3)


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
