"""Fixtures of the SDAA tests: the fake runtime, a toy model, and ``zoo run`` of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zoo.testing.toy import write_toy, write_toy_tokenizer
from zoo_sdaa.testing import Fake, fake_sdaa


@dataclass(frozen=True)
class Ran:
    """A finished command. ``stderr`` has what its card's process wrote there, too."""

    exit_code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]
Command = Callable[..., Ran]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with fake_sdaa(tmp_path / "fake") as fake:
        yield fake


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """An ONNX file of a model that computes in no time."""
    return write_toy(tmp_path / "toy.onnx")


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """The toy model's tokenizer and config."""
    return write_toy_tokenizer(tmp_path / "toy")


@pytest.fixture
def command(zoo: Any, capfd: pytest.CaptureFixture[str]) -> Command:
    """``command("verify", ...)``: as ``zoo``, with what child processes write to stderr."""

    def call(*args: object, input: str | None = None) -> Ran:
        capfd.readouterr()
        result = zoo(*args, input=input)
        return Ran(result.exit_code, result.stdout, result.stderr + capfd.readouterr().err)

    return call


@pytest.fixture
def run(command: Command, words: Path, toy: Path) -> Run:
    """``zoo run`` of the panda demo with the toy model."""

    def call(*args: object, target: str = "sdaa", ckpt: object = toy, input: str | None = None) -> Ran:
        return command(
            "run", "zoo-reranker-tiny", "--ckpt", ckpt, "--config-path", words, "--target", target, "--shape", 64, *args, input=input
        )  # fmt: skip

    return call


def scores(result: Ran) -> list[float]:
    """The scores that a command printed."""
    assert result.exit_code == 0, result.stderr
    return [float(line.rsplit(":", 1)[1]) for line in result.stdout.splitlines()]


def fails(result: Ran, *said: str) -> str:
    """A command failed with one clear error that says all of ``said``, and printed no results."""
    assert result.exit_code == 1, result.stdout
    assert "Traceback" not in result.stderr
    for word in said:
        assert word in result.stderr
    assert result.stdout == ""
    return result.stderr


def start(toy: Path, words: Path, *options: str) -> subprocess.Popen[bytes]:
    """``zoo run`` in a process of its own, which reads pairs from stdin."""
    arguments = ("run", "zoo-reranker-tiny", "--ckpt", str(toy), "--config-path", str(words), "--shape", "32")
    return subprocess.Popen(
        [sys.executable, "-m", "zoo", *arguments, "--batch-size", "4", "--data-path", "-", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def feed(process: subprocess.Popen[bytes], pairs: int) -> None:
    """Give it pairs, and the end of its input."""
    assert process.stdin
    process.stdin.write(b"".join(b'["query %d", "passage"]\n' % n for n in range(pairs)))
    process.stdin.close()
    process.stdin = None


def lines(count: int) -> str:
    """Input lines with pairs of different lengths."""
    return "".join(f'["query {n}", "{"passage " * (n % 7 + 1)}{n}"]\n' for n in range(count))


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll for what another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
