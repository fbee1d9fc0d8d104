"""Ctrl-C, SIGTERM and SIGKILL: SDAA's cards are released, and a card that hangs holds up nobody."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sdaa_fixtures import feed, start, wait_for
from zoo_sdaa.testing import Fake, Machine, fake_sdaa

pytest.importorskip("onnx")

PROMPTLY = 15.0
"""Seconds: two for the run's own threads, five for the batch, and the rest for a busy machine."""


def ended(fake: Fake) -> bool:
    """Whether every process that used the runtime is gone."""
    return all(gone(process) for process in {event["pid"] for event in fake.events()})


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("options", [("--target", "sdaa"), ("--target", "sdaa:0"), ("--device-option", "process=no")])
def test_ctrl_c_releases_the_card(toy: Path, words: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.2)) as fake:
        process = start(toy, words, *options)
        feed(process, 400)
        wait_for(lambda: len(fake.events("call")) >= 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 130, err
        assert b"Interrupted" in err
        assert len(fake.events("call")) < 100
        assert not fake.leaks()


@pytest.mark.parametrize("options", [("--target", "sdaa:all"), ("--device-option", "process=no", "--target", "sdaa:0")])
def test_ctrl_c_returns_although_a_card_hangs(toy: Path, words: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    machine = Machine(cards=2, lose=0, lose_how="hang", device_seconds=0.05)
    with fake_sdaa(tmp_path / "fake", machine, leaks=True) as fake:
        process = start(toy, words, *options)
        feed(process, 400)
        wait_for(lambda: any(call["card"] == 0 for call in fake.events("call")))
        time.sleep(0.5)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - started < PROMPTLY
        assert process.returncode == 130, err
        assert b"Traceback" not in err
        wait_for(lambda: ended(fake), PROMPTLY)
        lost = {event["pid"] for event in fake.events("engine") if event["card"] == 0}
        assert {int(leak.rsplit(" ", 1)[1]) for leak in fake.leaks()} == lost, "the other card is released"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_a_compilation_can_be_interrupted(
    toy: Path, words: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """It takes minutes, in which the runtime hears of nothing."""
    begun = tmp_path / "begun"
    Path("slow.py").write_text(
        "import os, pathlib, time\n"
        f"def use_passes(module):\n    pathlib.Path({str(begun)!r}).write_text(str(os.getpid()))\n    time.sleep(600)\n"
    )
    with fake_sdaa(tmp_path / "fake") as fake:
        process = start(toy, words, "--target", "sdaa", "--pass-path", "slow.py")
        feed(process, 4)
        wait_for(lambda: begun.exists() and begun.read_text() != "")
        process.send_signal(number)
        out, err = process.communicate(timeout=PROMPTLY)
        assert (process.returncode, out) == (code, b"")
        assert b"Traceback" not in err
        wait_for(lambda: gone(int(begun.read_text())), PROMPTLY)
        assert not fake.events("build")
    assert not list((tmp_path / "zoo-home" / "engines").glob("*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("target", ["sdaa", "sdaa:all"])
def test_a_card_is_released_when_its_run_is_ended(
    toy: Path, words: Path, tmp_path: Path, number: signal.Signals, target: str
) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(cards=2, device_seconds=0.2)) as fake:
        process = start(toy, words, "--target", target)
        feed(process, 400)
        wait_for(lambda: len(fake.events("call")) >= 2)
        process.send_signal(number)
        process.communicate(timeout=20)
        wait_for(lambda: ended(fake), PROMPTLY)
        assert not fake.leaks()
        assert len(fake.events("context released")) == (2 if target == "sdaa:all" else 1)


def test_sigterm_while_a_card_hangs_leaves_no_process(toy: Path, words: Path, tmp_path: Path) -> None:
    with fake_sdaa(tmp_path / "fake", Machine(lose=0, lose_how="hang"), leaks=True) as fake:
        process = start(toy, words, "--target", "sdaa")
        feed(process, 400)
        wait_for(lambda: bool(fake.events("call")))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PROMPTLY)
        wait_for(lambda: ended(fake), PROMPTLY)


def test_sigterm_of_every_process_at_once_releases_the_card(toy: Path, words: Path, tmp_path: Path) -> None:
    """As a container runtime sends it."""
    with fake_sdaa(tmp_path / "fake", Machine(device_seconds=0.2)) as fake:
        process = start(toy, words, "--target", "sdaa")
        feed(process, 400)
        wait_for(lambda: len(fake.events("call")) >= 2)
        for child in {event["pid"] for event in fake.events()}:
            os.kill(child, signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        wait_for(lambda: ended(fake), PROMPTLY)
        assert not fake.leaks()
