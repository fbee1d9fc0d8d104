"""A session in a child process: it ends in time, releases what it holds, and a crash or a hang is an error that names it."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import ZooError
from zoo.scoring.processes import Processes
from zoo.scoring.session_process import ChildSettings, Opener, SessionProcess
from zoo.types import Artifact, SessionOptions, ShapeRule, Tensors

OPTIONS = SessionOptions(precision="fp32", batch_size=1, max_length=8, threads=1)
NOWHERE = Artifact(model=Path("none"), precision="fp32", origin="test")

ECHO, HANG, CRASH, PRINT = 0, 1, 2, 3


class Obedient:
    """Does what a batch says, and writes to ``log`` when it is closed."""

    input_names = ("input_ids",)
    device_seconds = None

    def __init__(self, log: Path, rows: int = 1) -> None:
        self._log = log
        self.shape_rule = ShapeRule(rows=rows)

    def submit(self, inputs: Tensors, outputs: object = None) -> Future[Tensors]:
        future: Future[Tensors] = Future()
        command = int(inputs["input_ids"][0])
        if command == HANG:
            return future
        if command == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if command == PRINT:
            os.write(1, b"chatter of a library\n")
        future.set_result({"seen": np.array([int(os.environ.get("SEEN", "0"))])})
        return future

    def close(self) -> None:
        self._log.write_text("closed", encoding="utf-8")

    def __enter__(self) -> Obedient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def opens(log: Path, rows: int, artifact: Artifact, options: SessionOptions) -> Obedient:
    return Obedient(log, rows)


def opens_for_ever(log: Path, artifact: Artifact, options: SessionOptions) -> Obedient:
    log.write_text("opening", encoding="utf-8")
    try:
        threading.Event().wait()
    finally:
        log.write_text("interrupted", encoding="utf-8")
    raise AssertionError


def fails_and_ends_slowly(artifact: Artifact, options: SessionOptions) -> Obedient:
    atexit.register(time.sleep, 0.3)
    raise ZooError("there is no such card")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def settings(log: Path, opener: Opener | None = None, rows: int = 1, **others: object) -> ChildSettings:
    return ChildSettings(
        name="card 3", opener=opener or functools.partial(opens, log, rows), artifact=NOWHERE, options=OPTIONS,
        hint=". Look at the card", **others,
    )  # type: ignore[arg-type]  # fmt: skip


def batch(command: int) -> Tensors:
    return {"input_ids": np.array([command])}


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_it_has_the_environment_it_is_given(log: Path) -> None:
    with SessionProcess(settings(log, environment={"SEEN": "7"})).wait_until_open() as process:
        assert int(process.submit(batch(ECHO)).result(60)["seen"][0]) == 7
    assert log.read_text() == "closed"


def test_what_it_prints_to_stdout_goes_to_stderr(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with SessionProcess(settings(log)).wait_until_open() as process:
        process.submit(batch(PRINT)).result(60)
    assert capfd.readouterr() == ("", "chatter of a library\n")


def test_a_crash_is_an_error_that_names_it_and_says_what_to_do(log: Path) -> None:
    with SessionProcess(settings(log)).wait_until_open() as process:
        expected = r"card 3 \(process \d+\) has died: it was ended by SIGSEGV\. Look at the card"
        with pytest.raises(ZooError, match=expected):
            process.submit(batch(CRASH)).result(60)
        with pytest.raises(ZooError, match="card 3"):
            process.submit(batch(ECHO))


def test_a_session_that_does_not_answer_in_time_is_lost_and_all_that_wait_for_it_are_told(log: Path) -> None:
    with SessionProcess(settings(log, answer_seconds=0.5)).wait_until_open() as process:
        assert process.submit(batch(ECHO)).result(60)
        time.sleep(1.0)  # nobody waits for an answer, so it is not late
        first, second = process.submit(batch(HANG)), process.submit(batch(HANG))
        for waiting in (first, second):
            with pytest.raises(ZooError, match=r"card 3 .* has not answered for 0\.5 s\. Look at the card"):
                waiting.result(60)
        started = time.monotonic()
    assert time.monotonic() - started < 5


def test_opening_is_not_subject_to_the_limit(log: Path) -> None:
    process = SessionProcess(settings(log, functools.partial(opens_for_ever, log), answer_seconds=0.1))
    wait_for(log.exists)
    time.sleep(0.5)
    assert not process._greeting.done()
    process.close()


def test_closing_while_it_opens_interrupts_the_opening(log: Path) -> None:
    process = SessionProcess(settings(log, functools.partial(opens_for_ever, log)))
    wait_for(log.exists)
    process.close()
    assert log.read_text() == "interrupted"


def test_a_process_that_could_not_open_ends_undisturbed(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZooError, match="there is no such card"):
        Processes.opened([settings(log, fails_and_ends_slowly)])
    assert capfd.readouterr().err == ""


def test_a_process_that_is_stopped_does_not_hold_up_its_closing(log: Path) -> None:
    process = SessionProcess(settings(log, closing_seconds=0.5)).wait_until_open()
    os.kill(process.process_id, signal.SIGSTOP)
    for _ in range(8):  # more than the pipe takes
        threading.Thread(target=process.submit, args=({"input_ids": np.zeros(1 << 18)},), daemon=True).start()
    started = time.monotonic()
    process.close()
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(process.process_id, 0)


def test_sigterm_closes_the_session(log: Path) -> None:
    process = SessionProcess(settings(log)).wait_until_open()
    os.kill(process.process_id, signal.SIGTERM)
    wait_for(log.exists)
    with pytest.raises(ZooError, match="card 3"):
        process.submit(batch(ECHO)).result(60)
    process.close()


def test_it_ends_when_its_parent_is_gone(log: Path) -> None:
    process = SessionProcess(settings(log)).wait_until_open()
    process._socket.shutdown(2)  # what the system does for a parent that was killed
    wait_for(log.exists)
    process.close()


def test_an_opener_that_cannot_be_sent_leaves_no_process(log: Path) -> None:
    with pytest.raises(Exception, match=r"pickle|local object"):
        SessionProcess(settings(log, lambda artifact, options: Obedient(log)))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_sessions_of_different_shapes_are_named_and_closed(tmp_path: Path) -> None:
    logs = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ZooError, match=r"card 3: 1 rows, card 3: 2 rows"):
        Processes.opened([settings(log, rows=number) for number, log in enumerate(logs, start=1)])
    assert [log.read_text() for log in logs] == ["closed", "closed"]
